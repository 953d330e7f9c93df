"""One system call of a job fails, each in turn: no point is lost, nothing goes back, and nobody sees a traceback."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.pool import PROGRAMS

STEP = 97  # every so many calls are tried where not all are; a prime, as what a job does repeats itself
NUM_FAULTS = 2000


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What lets one call fail, for LD_PRELOAD."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    library = tmp_path_factory.mktemp("storage") / "failing_calls.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(PROGRAMS / "failing_calls.c"), "-ldl"]
    subprocess.run(command, check=True)
    return library


def job(storage: Path, *argv: int) -> list[str]:
    """What faulted_job.py says, line by line."""
    environ = {**os.environ, "LD_PRELOAD": str(storage), "PYTHONPATH": str(PROGRAMS.parents[1])}
    command = [sys.executable, str(PROGRAMS / "faulted_job.py"), *map(str, argv)]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout.splitlines()


def failures(lines: list[str]) -> list[list[object]]:
    return [found for line in lines if (found := json.loads(line))[3]]


def test_a_call_that_fails_here_and_there_loses_nothing(storage: Path) -> None:
    lines = job(storage, 1, STEP, errno.EIO)
    assert len(lines) > 10
    assert failures(lines) == []


@pytest.mark.slow
def test_no_call_that_fails_loses_anything(storage: Path) -> None:
    lines = job(storage, 1, 1, errno.EIO, errno.EACCES)
    assert len(lines) > NUM_FAULTS
    assert failures(lines) == []
