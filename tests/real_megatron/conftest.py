"""One undisturbed run of each shape, shared by all tests of this folder and all workers of the test run."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from support.runs import ALONE, ITERATIONS_PER_EPISODE, Run, Server, once, run_of_shape, undisturbed_runs


@pytest.fixture(scope="session")
def undisturbed(server: Server, shared_folder: Path) -> Callable[[str], Run]:
    """The run of a shape that nobody disturbed; it also made the frozen models that all others share."""
    return undisturbed_runs(server, shared_folder)


@pytest.fixture
def new_run(server: Server, undisturbed: Callable[[str], Run], tmp_path: Path) -> Callable[..., Run]:
    """A run with a folder of its own, and the frozen models of the undisturbed one."""

    def make(shape: str = "dp2", *flags: str, name: str = "run") -> Run:
        frozen = undisturbed(shape).output / "checkpoints"
        loads = ("--reference-load", str(frozen / "reference"), "--reward-load", str(frozen / "reward"))
        return run_of_shape(server, tmp_path / name, shape, *loads, *flags)

    return make


def make_interrupted(undisturbed: Callable[[str], Run], folder: Path, shape: str) -> Run:
    """A run that was killed between the saves of its second episode, its first point committed."""
    frozen = undisturbed(shape).output / "checkpoints"
    loads = ("--reference-load", str(frozen / "reference"), "--reward-load", str(frozen / "reward"))
    run = run_of_shape(undisturbed(shape).server, folder / "interrupted" / shape, shape, *loads)
    once(run.output, lambda: run.killed("save.begin@value:2", committed=ITERATIONS_PER_EPISODE))
    return run


def copied(interrupted: Run, target: Path) -> Run:
    """The run again, in a folder of its own: everything, models included, was copied."""
    shutil.copytree(interrupted.output, target)
    return replace(interrupted, output=target, starts=[])


@pytest.fixture(scope="session")
def interrupted(undisturbed: Callable[[str], Run], shared_folder: Path) -> Run:
    """A run of one rank that was killed between the saves of its second episode; copy it, do not start it."""
    return make_interrupted(undisturbed, shared_folder, ALONE)


@pytest.fixture
def copy_of_interrupted(interrupted: Run, tmp_path: Path) -> Run:
    return copied(interrupted, tmp_path / "copy")


@pytest.fixture
def copy_of_interrupted_pair(undisturbed: Callable[[str], Run], shared_folder: Path, tmp_path: Path) -> Run:
    """The same with two ranks."""
    return copied(make_interrupted(undisturbed, shared_folder, "dp2"), tmp_path / "copy")
