"""`make test-gpu` without a GPU: one clear line, and no failure; with --on-cpu the same code runs on the stand-in."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

GPU = Path(__file__).with_name("gpu.py")


@pytest.mark.torch
def test_without_a_gpu_it_says_in_one_line_that_all_is_skipped(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(sys, "argv", [str(GPU)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(GPU), run_name="__main__")
    said = capfd.readouterr()
    assert (ended.value.code, said.err) == (0, "")
    assert said.out == (
        "make test-gpu: skipped, all of it: torch finds no GPU here (torch.cuda.is_available() is False)\n"
    )


@pytest.mark.slow
def test_its_runs_and_comparisons_work_on_the_stand_in() -> None:
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, str(GPU), "--on-cpu"], capture_output=True, text=True, env=hidden)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split(maxsplit=1)[0] for line in done.stdout.splitlines()]
    assert lines == ["ok", "ok", "ok", "ok", "make"], "two modes: two undisturbed runs, and a kill"
