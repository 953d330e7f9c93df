"""What is done at the end of a process: while its group is there, and in whatever way it ends by itself."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support import PROGRAMS, pool
from support.pool import Pool

FINISHES = """
import sys
import torch.distributed as dist
from megatron_resume.adapter.end_of_process import EndOfProcess

dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
EndOfProcess(lambda: print("finishes", dist.is_initialized()), lambda: print("leaves"), lambda: None)
try:
    END
finally:
    dist.destroy_process_group()
"""

UNFINISHED = """
import multiprocessing, sys
import megatron_resume.auto
from megatron_resume.adapter import saving
from megatron_resume.adapter.finalizing import Save

def rank(end):
    finalizing = saving._saves.finalizing
    finalizing.watch_end()
    finalizing.in_flight.append(Save("policy", 3))
    exec(end)

process = multiprocessing.get_context("fork").Process(target=rank, args=(sys.argv[1],))
process.start()
process.join()
sys.exit(process.exitcode)
"""


@pytest.fixture
def run(torch_pool: Pool, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program: in an interpreter of its own, or forked, which spares the import of torch."""

    def run_one(program: str, *argv: str, forked: bool) -> subprocess.CompletedProcess[str]:
        script = tmp_path / "program.py"
        script.write_text(program)
        if forked:
            return pool.run(torch_pool, PROGRAMS / "python.py", str(script), *argv)
        return subprocess.run([sys.executable, str(script), *argv], capture_output=True, text=True, timeout=300)

    return run_one


@pytest.mark.parametrize(
    "end, code, said, forked",
    [
        ("pass", 0, ["finishes True", "leaves"], False),
        ("sys.exit(0)", 0, ["finishes True", "leaves"], True),
        ("sys.exit(3)", 3, [], True),
        ("raise ValueError", 1, [], True),
    ],
)
def test_what_is_left_is_finished_before_a_group_is_destroyed_by_the_end_of_a_script_that_did_its_work(
    run: Callable[..., subprocess.CompletedProcess[str]], end: str, code: int, said: list[str], forked: bool
) -> None:
    ended = run(FINISHES.replace("END", end), forked=forked)
    assert ended.returncode == code, ended.stderr
    lines = ended.stdout.splitlines()  # at the end of the process each action bears a second call
    assert [*lines[:1], *lines[-1:]] == said


@pytest.mark.parametrize(
    "end, code, forked",
    [
        ("pass", 78, False),
        ("sys.exit(0)", 78, True),
        ("sys.exit(3)", 3, True),
        ("saving._saves.in_flight.clear()", 0, True),
    ],
)
def test_a_rank_that_multiprocessing_made_tells_of_saves_that_nobody_finished(
    run: Callable[..., subprocess.CompletedProcess[str]], end: str, code: int, forked: bool
) -> None:
    ended = run(UNFINISHED, end, forked=forked)
    assert ended.returncode == code, ended.stderr
    assert ("policy of iteration 3 will never be committed" in ended.stderr) is (code == 78)
