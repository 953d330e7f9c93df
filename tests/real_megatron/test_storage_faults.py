"""Storage fails under a running job: that costs the point that was being saved, and nothing else."""

import errno
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.runs import ALONE, Ended, Run, assert_identical

MODELS = 64 << 20  # bytes; a run of three episodes saves about 20 MB a role
DATA = 1 << 20


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[Path, int], Path]]:
    """Puts a small file system of its own, that can fill up or become read-only, at a path."""
    done: list[Path] = []

    def mount(path: Path, size: int) -> Path:
        path.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
        said = subprocess.run(command, capture_output=True, text=True)
        if said.returncode != 0:
            pytest.skip(f"a small file system cannot be mounted here: {said.stderr.strip()}")
        done.append(path)
        return path

    yield mount
    for path in done:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def points(run: Run) -> list[int]:
    return [point["iteration"] for point in run.status()["points"] if point["state"] in ("resumable", "committed")]


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_a_run_goes_on_and_only_the_point_of_that_save_is_missing(
    new_run: Callable[..., Run], undisturbed: Callable[[str], Run], mounted: Callable[[Path, int], Path], fault: str
) -> None:
    run = new_run()
    at = mounted(run.data_checkpoint, DATA)
    ended = spoiled(run, fault, at)
    assert ended.code == 0, ended.log[-6000:]
    assert points(run) == [6, 2]
    cause = {"full": "No space left on device", "read-only": "Read-only file system"}[fault]
    ended.line(rf"policy of iteration 4 of attempt 1 is not committed: .*{run.data_checkpoint}.*{cause}")
    assert_identical(run, undisturbed("dp2"))


def test_a_full_disk_of_the_models_ends_megatron_and_the_next_start_loses_that_save_only(
    new_run: Callable[..., Run], undisturbed: Callable[[str], Run], mounted: Callable[[Path, int], Path]
) -> None:
    run = new_run()
    at = mounted(run.output / "checkpoints", MODELS)
    ended = spoiled(run, "full", at)
    assert ended.code not in (0, 65, 78), ended.log[-6000:]
    (at / "filler").unlink()
    assert points(run) == [2]
    run.finish()
    assert points(run) == [6, 4, 2]
    assert_identical(run, undisturbed("dp2"))


def test_a_run_that_can_commit_nothing_any_more_stops_and_says_why(
    new_run: Callable[..., Run], undisturbed: Callable[[str], Run], mounted: Callable[[Path, int], Path]
) -> None:
    run = new_run("dp2", "--max-uncommitted-saves", "1")
    at = mounted(run.data_checkpoint, DATA)
    ended = spoiled(run, "full", at, FOR_GOOD="1")
    assert ended.code == 78, ended.log[-6000:]
    ended.line(r"1 in a row; the limit is 1.*iteration 4 of attempt 1 because: .*No space left on device")
    (at / "filler").unlink()
    run.finish()
    assert points(run) == [6, 4, 2]
    assert_identical(run, undisturbed("dp2"))


def test_a_commit_that_cannot_be_looked_up_costs_a_restart_and_no_iteration(
    new_run: Callable[..., Run], undisturbed: Callable[[str], Run]
) -> None:
    """Going back to nothing would be the end of what it had trained."""
    run = new_run(ALONE, "--resume-read-timeout", "1")
    run.killed("save.begin@policy:2", committed=2)
    stale = {"FAULT": "iter_0000002.a0001/COMMITTED", "ERRNO": str(errno.ESTALE)}
    ended = run.start(tamper="storage.does_not_answer", env={**stale, "TIMES": "1000000"})
    assert ended.refused_with == 203, ended.log[-6000:]
    ended.line(r"start refused: .*iter_0000002.a0001/COMMITTED cannot be read: Stale file handle \(asked for 1 s\)")
    assert "starts fresh" not in ended.log
    ended = run.start(tamper="storage.does_not_answer", env={**stale, "TIMES": "2"})
    assert ended.code == 0, ended.log[-6000:]
    ended.line(r"COMMITTED cannot be read: Stale file handle; it is tried again for 1 s")
    ended.line(r"resumes from iteration 2 of attempt 1")
    assert_identical(run, undisturbed(ALONE))


def spoiled(run: Run, fault: str, at: Path, **more: str) -> Ended:
    """Start the job on storage that fails while iteration 4 is saved."""
    env = {"STORAGE": fault, "AT": str(at), **more}
    return run.start(tamper="storage.storage_fails_at_the_second_save", env=env)
