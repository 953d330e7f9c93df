"""Workers of a DataLoader outlive a SIGTERM to all processes of their rank, and end with it."""

import subprocess
from pathlib import Path

import pytest

from support.pool import MEGATRON, Pool
from support.pool import run as pool_run

PROGRAM = """
import os, signal, sys
from types import SimpleNamespace
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader
from megatron_resume.adapter import session, versions
from megatron_resume.watch import marks

if __name__ == "__main__":
    session._session, session._begun_in = SimpleNamespace(), os.getpid()
    marks.is_watched = lambda: True
    if HOOKED:
        versions.other_hooks.install()
    signal.signal(signal.SIGTERM, lambda *_: None)
    batches = iter(LOADER(range(1000), batch_size=1, num_workers=2, prefetch_factor=2))
    next(batches)
    os.killpg(0, signal.SIGTERM)
    rest = sum(1 for batch in batches)
    print(rest, flush=True)
    more = iter(LOADER(range(1000), batch_size=1, num_workers=2))  # is left alone where Python ends
    next(more)
"""


def run(pool: Pool, folder: Path, loader: str, *, hooked: bool) -> subprocess.CompletedProcess[str]:
    program = folder / "program.py"
    program.write_text(PROGRAM.replace("LOADER", loader).replace("HOOKED", str(hooked)))
    return pool_run(pool, program, kind=MEGATRON)


@pytest.mark.parametrize("loader", ["DataLoader", "StatefulDataLoader"])
def test_all_batches_come_after_the_signal_and_the_workers_end_with_python(
    pool: Pool, loader: str, tmp_path: Path
) -> None:
    done = run(pool, tmp_path, loader, hooked=True)
    assert (done.returncode, done.stdout) == (0, "999\n"), done.stderr


def test_without_the_hook_the_next_batches_are_an_error(pool: Pool, tmp_path: Path) -> None:
    done = run(pool, tmp_path, "DataLoader", hooked=False)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
