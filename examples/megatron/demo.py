"""`make demo`: train once undisturbed, once with two kills, and show that nothing differs."""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent))

from demo_steps import compare
from demo_steps.picture import draw
from demo_steps.result import build_result
from demo_steps.runs import DemoFailed, Start, train
from demo_steps.table import show
from rich.console import Console

from megatron_resume.cli import main as megatron_resume

ROOT = Path(__file__).resolve().parents[2]
MARKER = "made_by_megatron_resume_demo"
NUM_EPISODES = 12
ITERATIONS_PER_EPISODE = 4
# Where the killed run dies: (crash point, what it means). Counted anew in each start, of which the
# second begins with episode 5: the kill hits it in the third iteration of its fifth episode.
KILLS = (
    ("save.begin@value:5", "between the saves\nof policy and value"),
    (f"train_step@policy:{4 * ITERATIONS_PER_EPISODE + 3}", "in the middle\nof an iteration"),
)


def main() -> int:
    """Run the demo; 0 only when the runs are identical."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / "demo_output",
        help="folder for everything; replaced if an earlier demo made it (default: %(default)s)",
    )
    output = parser.parse_args().output.resolve()
    console = Console()
    _clear(output)
    started = time.monotonic()
    try:
        starts = _train_both(output, console)
    except DemoFailed as error:
        console.print(f"[bold red]demo:[/] {error}", soft_wrap=True)
        return 1
    return _conclude(output, starts, started, console)


def _clear(output: Path) -> None:
    """Remove what an earlier demo left, and nothing that could be anything else."""
    if output.exists():
        if not (output / MARKER).exists():
            sys.exit(f"demo: {output} was not made by the demo; move it away or choose another --output")
        shutil.rmtree(output)
    output.mkdir(parents=True)
    (output / MARKER).touch()


def _train_both(output: Path, console: Console) -> list[Start]:
    """Both runs; the starts of the killed one."""
    console.print(f"PPO on four Megatron models, {NUM_EPISODES} episodes, 2 ranks; logs in {output}", soft_wrap=True)
    undisturbed = _arguments(output / "undisturbed", output / "undisturbed" / "data_checkpoint")
    _step("undisturbed run", undisturbed, output / "undisturbed.log", None, console)
    killed = _arguments(output / "killed", output / "data_checkpoint")
    starts = []
    for number, (crash_at, _) in enumerate(KILLS, 1):
        title = f"killed run, start {number}, SIGKILL at {crash_at}"
        starts.append(_step(title, killed, output / f"killed.start{number}.log", crash_at, console))
    number = len(KILLS) + 1
    title = f"killed run, start {number}, the same command again"
    return [*starts, _step(title, killed, output / f"killed.start{number}.log", None, console)]


def _arguments(folder: Path, data_checkpoint: Path) -> list[str]:
    flags = {
        "--model-size": "tiny",
        "--nproc": 2,
        "--tp": 1,
        "--pp": 1,
        "--output": folder,
        "--num-episodes": NUM_EPISODES,
        "--data-checkpoint-path": data_checkpoint,
        "--final-state-file": folder / "final_state.json",
    }
    return [str(word) for flag in flags.items() for word in flag]


def _step(title: str, argv: list[str], log: Path, crash_at: str | None, console: Console) -> Start:
    with console.status(title) as status:
        start = train(argv, log, crash_at=crash_at, show=lambda line: status.update(f"{title}: [dim]{line}[/]"))
    outcome = "killed" if crash_at else "done"
    console.print(f"  {title}: {outcome} after {start.seconds:.0f} s", highlight=False)
    return start


def _conclude(output: Path, starts: list[Start], started: float, console: Console) -> int:
    undisturbed, killed = output / "undisturbed", output / "killed"
    result = build_result(undisturbed, killed, starts, time.monotonic() - started)
    verdict = "identical to the bit" if result["identical"] else "NOT identical"
    title = f"PPO on Megatron, killed twice and resumed by the same command: {verdict}"
    calm, trace = (compare.read_trace(run / "trace.jsonl") for run in (undisturbed, killed))
    draw(calm, trace, [meaning for _, meaning in KILLS], title, output / "demo.png")
    result["seconds"] = round(time.monotonic() - started, 1)
    (output / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    show(result, output, console)
    megatron_resume(["report", str(output / "data_checkpoint"), "--to", str(output / "report.html")])
    return 0 if result["identical"] else 1


if __name__ == "__main__":
    sys.exit(main())
