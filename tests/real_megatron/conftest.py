"""One undisturbed run of each shape, shared by all tests of this folder and all workers of the test run."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from support.runs import SHAPES, Run, Server, once, undisturbed_runs


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
        return Run(server, tmp_path / name, (*SHAPES[shape], *loads, *flags))

    return make


@pytest.fixture(scope="session")
def interrupted(server: Server, undisturbed: Callable[[str], Run], shared_folder: Path) -> Run:
    """A dp 2 run that was killed between the saves of its second episode; copy it, do not start it."""
    frozen = undisturbed("dp2").output / "checkpoints"
    loads = ("--reference-load", str(frozen / "reference"), "--reward-load", str(frozen / "reward"))
    run = Run(server, shared_folder / "interrupted", loads)
    once(run.output, lambda: run.killed("save.begin@value:2"))
    return run


@pytest.fixture
def copy_of_interrupted(interrupted: Run, tmp_path: Path) -> Run:
    """The interrupted run again, in a folder of its own: everything, models included, was copied."""
    target = tmp_path / "copy"
    shutil.copytree(interrupted.output, target)
    return Run(interrupted.server, target, interrupted.flags)
