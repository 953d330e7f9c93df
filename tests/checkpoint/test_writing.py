"""Files appear whole or not at all, attempts are numbered once, a commit comes last."""

import os
import signal
import threading
from pathlib import Path

import pytest

from megatron_resume import crash
from megatron_resume.checkpoint import atomic, leftovers
from megatron_resume.checkpoint.attempts import attempt_numbers, take_number
from megatron_resume.checkpoint.commit import commit, missing_parts, open_point
from megatron_resume.checkpoint.launch_key import launch_key
from megatron_resume.checkpoint.layout import COMMITTED, PointName, attempt_path, point_path
from megatron_resume.errors import ConfigError
from megatron_resume.resume.choose import Resume
from support.job_on_disk import JobOnDisk, contents
from support.pool import PLAIN, Pool, run


def test_a_new_file_never_replaces_another(tmp_path: Path) -> None:
    atomic.write_new(tmp_path / "file", b"first")
    with pytest.raises(FileExistsError):
        atomic.write_new(tmp_path / "file", b"second")
    assert contents(tmp_path) == {"file": b"first"}


def test_replacing_leaves_one_whole_file(tmp_path: Path) -> None:
    atomic.replace(tmp_path / "file", b"first")
    atomic.replace(tmp_path / "file", b"second")
    assert contents(tmp_path) == {"file": b"second"}


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        atomic.write_new(tmp_path / "file", b"data")
    assert "file" not in contents(tmp_path)


class Disk:
    """What a power cut would leave: a name stays if its folder was fsynced since it has it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self._names: dict[int, set[str]] = {}
        original = os.fsync

        def fsync(descriptor: int) -> None:
            original(descriptor)
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            if path.is_dir():
                self._names[path.stat().st_ino] = set(os.listdir(path))

        monkeypatch.setattr(os, "fsync", fsync)

    def keeps(self, path: Path, below: Path) -> bool:
        """Whether every name on the way from the folder `below`, which stood before, to `path` is durable."""
        below_it = [folder for folder in (path, *path.parents) if below in folder.parents]
        return all(folder.name in self._names.get(folder.parent.stat().st_ino, ()) for folder in below_it)


def test_new_folders_on_the_way_to_an_attempt_survive_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, root = Disk(monkeypatch), tmp_path / "new" / "run" / "data_checkpoint"
    number = take_number(root)
    assert disk.keeps(attempt_path(root, number), below=tmp_path)


def test_what_is_moved_aside_survives_a_power_cut(job: JobOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    job.save(job.attempt(), 4)
    disk, save = Disk(monkeypatch), job.save_folder("policy")
    leftovers.move_away(save, attempt=2, beyond=2)
    assert disk.keeps(leftovers.abandoned(save, 2) / "iter_0000004", below=save)


def test_attempts_taken_at_once_get_different_numbers(tmp_path: Path) -> None:
    taken: list[int] = []
    threads = [threading.Thread(target=lambda: taken.append(take_number(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == attempt_numbers(tmp_path) == list(range(1, 9))


def test_a_point_is_not_complete_before_every_part_is_there(job: JobOnDisk) -> None:
    name = PointName(2, job.attempt())
    point = open_point(job.root, name)
    assert missing_parts(point, job.roles) == ["policy", "value", "data"]
    job.write_receipt("value", name)
    job.write_data(name)
    assert missing_parts(point, job.roles) == ["policy"]


def test_a_second_commit_changes_nothing(job: JobOnDisk) -> None:
    name = job.save(job.attempt(), 2)
    before = contents(job.root)
    commit(point_path(job.root, name), name, nonce="nonce of 1", roles=job.roles)
    assert contents(job.root) == before


CRASH = """
import sys
from pathlib import Path
from megatron_resume import crash
from support.job_on_disk import JobOnDisk
job = JobOnDisk(Path(sys.argv[1]))
attempt = job.attempt()
job.save(attempt, 2)
crash.arm(sys.argv[2])
job.save(attempt, 4)
"""


STEPS = ("write.begin", "write.written", "write.synced", "write.named", "write.end")
FILES = ("policy.json", "value.json", "data.json", "COMMITTED")


AFTER_THE_COMMIT = [f"event.{step}@committed" for step in ("begin", "torn", "end")]


@pytest.mark.parametrize(
    "point", [*(f"{step}@{file}" for file in FILES for step in STEPS), "commit.end", *AFTER_THE_COMMIT]
)
def test_killed_on_the_way_to_a_commit_the_older_point_stands(
    job: JobOnDisk, point: str, torch_pool: Pool, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(CRASH)
    ended = run(torch_pool, program, str(job.base), point, kind=PLAIN)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert f"crash point {point}" in ended.stderr
    visible = point in ("write.named@COMMITTED", "write.end@COMMITTED", "commit.end", *AFTER_THE_COMMIT)
    outcome = job.choose()
    assert isinstance(outcome, Resume)
    assert outcome.point.name == PointName(4 if visible else 2, 1)
    assert (point_path(job.root, PointName(4, 1)) / COMMITTED).exists() == visible


def test_an_unknown_crash_point_is_an_error() -> None:
    with pytest.raises(ConfigError, match="is 'save.start'; write point"):
        crash.arm("save.start")


def test_what_lies_beyond_the_point_is_moved_aside_and_kept(job: JobOnDisk) -> None:
    attempt = job.attempt()
    for iteration in (2, 4, 6):
        job.save(attempt, iteration)
    save = job.save_folder("policy")
    lost = contents(job.model("policy", 6))
    assert leftovers.move_away(save, attempt=2, beyond=2) == [4, 6]
    assert leftovers.saved_iterations(save) == [2]
    assert contents(leftovers.abandoned(save, 2) / "iter_0000006") == lost


def test_moving_aside_twice_loses_neither(job: JobOnDisk) -> None:
    save = job.save_folder("policy")
    for content in (b"first", b"second"):
        (save / "iter_0000004").mkdir(parents=True)
        (save / "iter_0000004" / "shard").write_bytes(content)
        leftovers.move_away(save, attempt=2, beyond=0)
    kept = contents(leftovers.abandoned(save, 2))
    assert sorted(data for data in kept.values() if data) == [b"first", b"second"]


@pytest.mark.parametrize("tracker", [b"", b"4", b"release", b"\xff", None])
def test_the_tracker_names_the_point_whatever_it_said(tmp_path: Path, tracker: bytes | None) -> None:
    path = tmp_path / "latest_checkpointed_iteration.txt"
    if tracker is not None:
        path.write_bytes(tracker)
    leftovers.write_tracker(tmp_path, 2)
    assert path.read_text() == "2"


def test_a_fresh_start_leaves_what_is_not_of_this_job(job: JobOnDisk) -> None:
    job.save(job.attempt(), 4, parts=("policy",))
    save = job.save_folder("policy")
    (save / "iter_0000003").mkdir()
    ours = leftovers.iterations_of_job(job.root)
    leftovers.retire_tracker(save, attempt=2, beyond=0, only=ours)
    assert leftovers.move_away(save, attempt=2, beyond=0, only=ours) == [4]
    assert (save / "latest_checkpointed_iteration.txt").read_text() == "3"


def test_without_any_model_left_the_tracker_goes_along(job: JobOnDisk) -> None:
    job.save(job.attempt(), 4, parts=("policy",))
    save = job.save_folder("policy")
    leftovers.retire_tracker(save, attempt=2, beyond=0)
    assert not (save / "latest_checkpointed_iteration.txt").exists()


def test_all_processes_of_a_launch_have_one_key_and_launches_differ() -> None:
    assert launch_key({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "2"}).job == "7"
    torchrun = {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "1"}
    by_parent = launch_key(torchrun)
    assert by_parent.restart == 1
    assert str(os.getppid()) in by_parent.job, "torchrun's default run id names no launch; its agent does"
    assert launch_key({**torchrun, "TORCHELASTIC_RUN_ID": "abc"}).job == "abc"


def test_each_restart_counts_more_than_all_before_it_whoever_restarted() -> None:
    lives = [
        {},
        {"TORCHELASTIC_RESTART_COUNT": "3"},
        {"MEGATRON_RESUME_ENGINE_STARTS": "1", "TORCHELASTIC_RESTART_COUNT": "0"},
        {"MEGATRON_RESUME_REQUEUES": "1", "MEGATRON_RESUME_ENGINE_STARTS": "0", "TORCHELASTIC_RESTART_COUNT": "0"},
        {"SLURM_RESTART_COUNT": "1", "MEGATRON_RESUME_ENGINE_STARTS": "0", "TORCHELASTIC_RESTART_COUNT": "0"},
        {"SLURM_RESTART_COUNT": "1", "MEGATRON_RESUME_ENGINE_STARTS": "0", "TORCHELASTIC_RESTART_COUNT": "1"},
        {"SLURM_RESTART_COUNT": "2"},
    ]
    counts = [launch_key(environ).restart for environ in lives]
    assert counts == sorted(set(counts))
