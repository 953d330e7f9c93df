"""The example under `launch --engine nvrx`, with the ft_launcher of .venv-nvrx: a rank dies, and nothing differs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from megatron_resume.checkpoint.layout import COMMITTED
from megatron_resume.processes import descendants
from support import ROOT
from support.runs import EPISODES, EXAMPLE, SMALL, Run, arguments, assert_identical

FT_LAUNCHER = ROOT / ".venv-nvrx" / "bin" / "ft_launcher"
IS_THERE = (ROOT / ".venv-nvrx" / ".installed").exists()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not IS_THERE, reason="there is no .venv-nvrx; `make venv-nvrx` makes it"),
]


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[Callable[[Run], "subprocess.Popen[bytes]"]]:
    """`launch` of a run, whose processes are all gone after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def launch(run: Run) -> "subprocess.Popen[bytes]":
        run.output.mkdir(parents=True)
        command = ["launch", "--engine", "nvrx", "--ft-launcher", str(FT_LAUNCHER), "--nproc-per-node", "2", "--"]
        script = [str(EXAMPLE / "entry" / "train_rlhf.py"), *arguments(run.output), *SMALL, *run.flags]
        with open(run.output / "launch.log", "wb") as log:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "megatron_resume", *command, *script, "--num-episodes", str(EPISODES)],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
                )
            )
        return started[-1]

    yield launch
    for process in started:
        if process.poll() is None:
            process.kill()  # what it started ends with it
            process.wait()


def rank_of(launch: int, rank: int) -> int | None:
    """The process of a rank below `launch`: the one that an engine started, not a helper that the rank started."""
    for pid in descendants(launch):
        command, environ = (read(pid, file) for file in ("cmdline", "environ"))
        if b"\0run\0" in command and b"\0RANK=%d\0" % rank in b"\0" + environ:
            return pid
    return None


def read(pid: int, file: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes()
    except OSError:
        return b""


def test_killed_under_ft_launcher_a_run_is_identical_to_the_undisturbed_one(
    new_run: Callable[[], Run],
    undisturbed: Callable[[str], Run],
    launched: Callable[[Run], "subprocess.Popen[bytes]"],
) -> None:
    run = new_run()
    launch = launched(run)
    while not any(run.data_checkpoint.glob(f"iter_*/{COMMITTED}")):
        assert launch.poll() is None, log_of(run)
        time.sleep(0.1)
    victim = rank_of(launch.pid, 1)
    assert victim is not None
    os.kill(victim, signal.SIGKILL)

    assert launch.wait() == 0, log_of(run)
    log = log_of(run)
    assert f"failed (exitcode: -9) local_rank: 1 (pid: {victim})" in log
    assert "attempt 2 resumes from" in log
    assert "attempt 3 resumes" not in log
    assert_identical(run, undisturbed("dp2"))


def log_of(run: Run) -> str:
    return (run.output / "launch.log").read_text(errors="replace")
