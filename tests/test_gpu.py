"""`make test-gpu` without a GPU: one clear line, and no failure; with --on-cpu the same code runs on the stand-in."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

GPU = Path(__file__).with_name("gpu.py")


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([sys.executable, str(GPU), *flags], capture_output=True, text=True, env=hidden)


def test_without_a_gpu_it_says_in_one_line_that_all_is_skipped() -> None:
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "make test-gpu: skipped, all of it: torch finds no GPU here (torch.cuda.is_available() is False)\n"
    )


@pytest.mark.slow
def test_its_runs_and_comparisons_work_on_the_stand_in() -> None:
    done = run("--on-cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split(maxsplit=1)[0] for line in done.stdout.splitlines()]
    assert lines == ["ok", "ok", "ok", "ok", "make"], "two modes: two undisturbed runs, and a kill"
