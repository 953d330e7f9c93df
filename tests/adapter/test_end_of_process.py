"""What is done at the end of a process: while its group is there, and in whatever way it ends by itself."""

import subprocess
import sys

import pytest

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


def run(program: str, *argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    "end, code, said",
    [
        ("pass", 0, ["finishes True", "leaves"]),
        ("sys.exit(0)", 0, ["finishes True", "leaves"]),
        ("sys.exit(3)", 3, []),
        ("raise ValueError", 1, []),
    ],
)
def test_what_is_left_is_finished_before_a_group_is_destroyed_by_the_end_of_a_script_that_did_its_work(
    end: str, code: int, said: list[str]
) -> None:
    ended = run(FINISHES.replace("END", end))
    assert ended.returncode == code, ended.stderr
    lines = ended.stdout.splitlines()  # at the end of the process each action bears a second call
    assert [*lines[:1], *lines[-1:]] == said


@pytest.mark.parametrize(
    "end, code", [("pass", 78), ("sys.exit(0)", 78), ("sys.exit(3)", 3), ("saving._saves.in_flight.clear()", 0)]
)
def test_a_rank_that_multiprocessing_made_tells_of_saves_that_nobody_finished(end: str, code: int) -> None:
    ended = run(UNFINISHED, end)
    assert ended.returncode == code, ended.stderr
    assert ("policy of iteration 3 will never be committed" in ended.stderr) is (code == 78)
