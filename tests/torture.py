"""`make torture`: kill random processes of the running RLHF example at random times; nothing may differ."""

import argparse
import contextlib
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from support.pool import Pool
from support.runs import SHAPES, Run, Server
from support.torture_report import report
from support.torture_runs import Tally, Torture

MOST_FAILURES = 3


def main() -> int:
    """0 when every run came to its end identical to the undisturbed one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="default: a random one")
    options = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("MEGATRON_RESUME_")]:
        del os.environ[name]  # of the person who types this; it must not configure the runs
    folder = Path(tempfile.mkdtemp(prefix="megatron_resume_torture_"))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(f"{options.kills} kills, --seed {options.seed}; logs in {folder}", soft_wrap=True, highlight=False)
    tally = torture(folder, options.kills, options.seed, console)
    console.print(report(tally))
    if tally.failures:
        console.print(f"[bold red]Failed[/] with --seed {options.seed}; everything is kept in {folder}", soft_wrap=True)
        return 1
    shutil.rmtree(folder)
    console.print(f"[bold green]Identical[/]: {tally.identical} runs, {tally.num_kills} kills, {tally.seconds:.0f} s.")
    return 0


def torture(folder: Path, kills: int, seed: int, console: Console) -> Tally:
    """Make the undisturbed runs, then kill."""
    console.print("importing torch and Megatron, making the undisturbed runs")
    pool = Pool(folder, os.getpid())
    server = Server(pool)
    references = {shape: Run(server, folder / "undisturbed" / shape, flags) for shape, flags in SHAPES.items()}
    for reference in references.values():
        reference.finish()

    def new_run(name: str, shape: str, flags: tuple[str, ...]) -> Run:
        frozen = references[shape].output / "checkpoints"
        loads = ("--reference-load", str(frozen / "reference"), "--reward-load", str(frozen / "reward"))
        return Run(server, folder / name, (*SHAPES[shape], *loads, *flags))

    with _shown(console, kills) as show:
        tally = Torture(new_run, references.__getitem__, seed=seed, show=show).until(kills, failures=MOST_FAILURES)
    pool.close()
    return tally


@contextlib.contextmanager
def _shown(console: Console, kills: int) -> Iterator[Callable[[str, Tally], None]]:
    """A progress bar on a terminal, lines elsewhere."""
    if not console.is_terminal:
        yield lambda line, tally: print(f"{tally.seconds:6.0f} s  {line}", flush=True)
        return
    columns = (TextColumn("kills"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.description}", markup=False), console=console) as progress:
        task = progress.add_task("", total=kills)

        def show(line: str, tally: Tally) -> None:
            progress.update(task, completed=tally.num_kills, description=line)
            if line.startswith("FAILED"):
                progress.console.print(line, soft_wrap=True, markup=False)

        yield show


if __name__ == "__main__":
    sys.exit(main())
