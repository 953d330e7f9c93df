"""The writer thread: what is enqueued is committed before the process ends, or said not to be."""

import logging
import multiprocessing
import os
import random
import re
from errno import EACCES, EDQUOT, EIO, ENOSPC, EROFS, ESTALE, errorcode
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
import torch.distributed as dist

from megatron_resume.adapter import life, loaders, ranks, rng, sharing
from megatron_resume.adapter.gathering import Gathered, OfRank
from megatron_resume.adapter.writer import Writer
from megatron_resume.checkpoint import commit
from megatron_resume.checkpoint.atomic import replace
from megatron_resume.checkpoint.events import Committed, read_events
from megatron_resume.checkpoint.fencing import own_name
from megatron_resume.checkpoint.layout import COMMITTED, PointName
from megatron_resume.checkpoint.records import Moment
from megatron_resume.errors import UncommittedError
from support.finished_saves import finished
from support.job_on_disk import JobOnDisk


def writer(job: JobOnDisk) -> Writer:
    return Writer(job.root, job.roles, stop_if_superseded=lambda: None)


def save_both(job: JobOnDisk, made: Writer, iteration: int) -> None:
    for save in [finished(job, role, PointName(iteration, 1)) for role in job.roles]:
        made.enqueue(save)


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_process_that_multiprocessing_made_commits_before_it_ends(job: JobOnDisk, method: str) -> None:
    process = multiprocessing.get_context(method).Process(target=save_and_leave, args=(job,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert job.folder().committed == [PointName(2, 1)]


def test_a_point_that_waits_for_the_other_role_is_known_until_somebody_commits_it(job: JobOnDisk) -> None:
    made, name = writer(job), PointName(2, 1)
    made.enqueue(finished(job, "policy", name))
    made.wait()
    assert made.waiting() == {name: ["value", "data"]}
    other = writer(job)  # of value's own job
    other.enqueue(finished(job, "value", name))
    other.wait()
    assert job.folder().committed == [name]
    assert made.waiting() == {}


def save_and_leave(job: JobOnDisk) -> None:
    save_both(job, writer(job), 2)


def test_a_model_that_was_not_saved_into_its_save_folder_is_not_committed(
    job: JobOnDisk, caplog: pytest.LogCaptureFixture
) -> None:
    made, name = writer(job), PointName(2, 1)
    for save in [finished(job, role, name) for role in job.roles]:
        if save.role == "policy":  # a newer attempt took the link, and Megatron made the folder that it missed
            link = own_name(job.root, 1, "policy")
            link.unlink()
            job.save_folder("policy").rename(link)
        made.enqueue(save)
    made.wait()
    assert job.folder().committed == []
    assert f"policy.save is no link to {job.save_folder('policy')}" in caplog.text


@pytest.mark.parametrize("call", ["fsync", "link", "unlink"])
@pytest.mark.parametrize("code", [ENOSPC, EIO, EACCES, EROFS, ESTALE, EDQUOT], ids=errorcode.get)
def test_a_fault_of_the_storage_costs_one_point_and_is_said(
    job: JobOnDisk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int, call: str
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code), "policy.json")

    made = writer(job)
    saves = [finished(job, role, PointName(2, 1)) for role in job.roles]
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails)
        for save in saves:
            made.enqueue(save)
        made.wait()
    save_both(job, made, 4)
    made.wait()
    assert job.folder().committed == [PointName(4, 1)]
    said = f"policy of iteration 2 of attempt 1 is not committed: [Errno {code}] {os.strerror(code)}: '"
    assert re.search(re.escape(said) + r"[^'>]*policy\.json'; the next save", caplog.text), caplog.text


def test_saves_that_come_to_nothing_again_and_again_are_counted_until_one_is_committed(
    job: JobOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = writer(job)
    for iteration in (2, 4, 6):
        saves = [finished(job, role, PointName(iteration, 1)) for role in job.roles]
        with monkeypatch.context() as patch:
            patch.setattr(os, "link", quota_is_used_up)
            for save in saves:
                made.enqueue(save)
            made.wait()
    made.check(4)
    with pytest.raises(UncommittedError, match=r"3 in a row.*iteration 6 of attempt 1 because.*quota"):
        made.check(3)
    save_both(job, made, 8)
    made.wait()
    made.check(1)


def quota_is_used_up(*_: object, **__: object) -> None:
    raise OSError(EDQUOT, "Disk quota exceeded", "policy.json")


def test_the_name_of_a_point_is_durable_before_its_commit(job: JobOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    committed_at_fsync_of_root, fsync = [], os.fsync

    def noting(descriptor: int) -> None:
        if os.fstat(descriptor).st_ino == job.root.stat().st_ino:
            committed_at_fsync_of_root.append(bool(job.folder().committed))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    made = writer(job)
    save_both(job, made, 2)
    made.wait()
    assert job.folder().committed == [PointName(2, 1)]
    assert committed_at_fsync_of_root[0] is False


def test_roles_of_two_moments_are_not_committed(job: JobOnDisk, caplog: pytest.LogCaptureFixture) -> None:
    made = writer(job)
    made.enqueue(finished(job, "policy", PointName(2, 1), Moment(episode=1, consumed_samples=16)))
    made.enqueue(finished(job, "value", PointName(2, 1), Moment(episode=2, consumed_samples=32)))
    made.wait()
    assert job.folder().committed == []
    assert "policy at episode 1 and sample 16, the data at episode 2 and sample 32" in caplog.text


def test_a_point_that_stays_incomplete_is_named_when_the_next_one_begins(
    job: JobOnDisk, caplog: pytest.LogCaptureFixture
) -> None:
    made = writer(job)
    made.enqueue(finished(job, "policy", PointName(4, 1)))
    made.enqueue(finished(job, "value", PointName(6, 1)))
    made.wait()
    assert (
        "iteration 4 of attempt 1 was not committed when value of iteration 6 was saved: value, data not" in caplog.text
    )


def test_each_commit_is_an_event(job: JobOnDisk) -> None:
    path = job.root / "policy.events.jsonl"
    life.begin(path)
    try:
        made = writer(job)
        for iteration in (2, 4):
            save_both(job, made, iteration)
        made.enqueue(finished(job, "policy", PointName(6, 1)))  # not whole, so not committed
        made.wait()
    finally:
        life.forget()
    assert [event.iteration for event in read_events(path).events if isinstance(event, Committed)] == [2, 4]
    assert read_events(path).ending is None


def test_each_save_and_each_commit_is_one_line(job: JobOnDisk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "megatron_resume")
    made = writer(job)
    save_both(job, made, 2)
    made.wait()
    *saves, line = [record.getMessage() for record in caplog.records]
    assert saves == [f"saved {role} of iteration 2 of attempt 1 (0.0 MB)" for role in job.roles]
    assert line.startswith("committed iteration 2 of attempt 1 (policy, value, 0.0 MB; next episode 2, 32 samples ")


def test_a_large_model_file_may_be_copied_with_its_time(job: JobOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron_resume.checkpoint import model_files

    monkeypatch.setattr(model_files, "DIGEST_UP_TO", 4)  # so that these files are too large to have a digest
    made = writer(job)
    save_both(job, made, 2)
    made.wait()
    shard = job.model("policy", 2) / "__0_0.distcp"
    time, data = shard.stat().st_mtime_ns, shard.read_bytes()
    shard.unlink()
    shard.write_bytes(data)
    os.utime(shard, ns=(time, time))
    assert job.point(PointName(2, 1)).models["policy"] == Path(job.model("policy", 2))
    os.utime(shard, ns=(time, time + 1))
    assert "was written to since it was saved" in str(job.choose().reason) + str(job.choose().passed_over)


def test_what_fails_after_a_commit_is_said_and_does_not_count_against_the_point(
    job: JobOnDisk, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[PointName] = []

    def fail(committed: PointName) -> None:
        raise RuntimeError("no reason")

    made = Writer(job.root, job.roles, stop_if_superseded=lambda: None, after_commit=[fail, done.append])
    save_both(job, made, 2)
    made.wait()
    made.check(limit=1)
    assert done == [PointName(2, 1)]
    assert "is committed, but what follows a commit failed" in caplog.text


def test_in_a_job_per_role_points_that_the_other_process_commits_end_the_count(
    job: JobOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(EIO, "Input/output error", str(arguments[1]))

    policy, value = writer(job), writer(job)
    for iteration in range(1, 12):
        with monkeypatch.context() as storage:
            if iteration % 2:
                storage.setattr(os, "link", refuse)
            policy.enqueue(finished(job, "policy", PointName(iteration, 1)))
            policy.wait()
        value.enqueue(finished(job, "value", PointName(iteration, 1)))
        value.wait()
        policy.check(limit=3)
    assert [name.iteration for name in job.folder().committed] == [2, 4, 6, 8, 10]


def test_saves_of_roles_that_never_meet_are_counted(job: JobOnDisk) -> None:
    made = writer(job)
    for iteration in range(1, 6):
        made.enqueue(finished(job, job.roles[iteration % 2], PointName(iteration, 1)))
    made.wait()
    with pytest.raises(UncommittedError, match="not saved at that iteration"):
        made.check(limit=3)


def test_a_point_that_is_visible_is_committed_although_its_folder_could_not_be_made_durable(
    job: JobOnDisk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail_on_committed(point: Path, *args: object, **kwargs: object) -> None:
        (point / COMMITTED).write_bytes(b"named, and then the fsync failed")
        raise OSError(EIO, "Input/output error", str(point))

    monkeypatch.setattr(commit, "commit", fail_on_committed)
    made = writer(job)
    save_both(job, made, 2)
    made.wait()
    made.check(limit=1)
    assert "is committed, but may not outlive a power cut" in caplog.text
    assert "not committed:" not in caplog.text


def test_a_full_disk_is_not_filled_with_what_could_not_be_written(
    job: JobOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(ENOSPC, "No space left on device")

    saves = [finished(job, role, PointName(2, 1)) for role in job.roles]
    made = writer(job)
    with monkeypatch.context() as storage:
        storage.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match="No space left"):
            replace(job.root / "x.lease", b"{}")
        for save in saves:
            made.enqueue(save)
        made.wait()
    assert [path.name for path in job.root.rglob("*.tmp")] == []


@pytest.mark.parametrize("in_time", [True, False], ids=["while it is written", "while they are waited for"])
def test_what_ranks_handed_in_for_a_save_that_fails_is_deleted_with_that_of_the_next_one(
    job: JobOnDisk, monkeypatch: pytest.MonkeyPatch, in_time: bool
) -> None:
    monkeypatch.setattr(ranks, "COLLECT_S", 0.01)
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    before = store.num_keys()
    for key in ("an older one/1", "failing/1", *["failing/2"] * in_time):
        store.set(key, mine().pack())
    made = writer(job)
    states = Gathered(mine(), store, "failing", ("an older one",), {"ranks": 3})
    problem = "the folder cannot be written" if in_time else None
    made.enqueue(msgspec.structs.replace(finished(job, "value", PointName(2, 1)), states=states, problem=problem))
    made.wait()
    for key in ("next/1", "next/2"):
        store.set(key, mine().pack())
    Gathered(mine(), store, "next", made.take_unused(), {"ranks": 3}).unpack(sharing.Captured({}, {}))
    assert store.num_keys() == before
    assert made.take_unused() == ()


def mine() -> OfRank:
    random_states = rng.Captured(random.getstate(), np.random.get_state(), {"torch": torch.get_rng_state()})
    return OfRank(random_states, loaders.Captured(0, {}), sharing.Captured({}, {}))


@pytest.mark.parametrize("left", ["nothing", "a folder"])
def test_a_model_without_a_file_is_not_committed(job: JobOnDisk, caplog: pytest.LogCaptureFixture, left: str) -> None:
    """As a Megatron leaves it that was told to train no weight."""
    made = writer(job)
    save_both(job, made, 2)
    saves = [finished(job, role, PointName(4, 1)) for role in job.roles]
    for file in job.model("policy", 4).iterdir():
        file.unlink()
    if left == "a folder":
        (job.model("policy", 4) / "empty").mkdir()
    for save in saves:
        made.enqueue(save)
    made.wait()
    assert job.folder().committed == [PointName(2, 1)]
    assert f"no file is in {job.model('policy', 4)}, so nothing could be loaded from it; the next save" in caplog.text


def test_saves_before_the_first_step_of_an_optimizer_lose_nothing_and_end_no_job(job: JobOnDisk) -> None:
    made = writer(job)
    problem = "the optimizer has made no step yet"
    for iteration in (2, 4, 6):
        for save in [finished(job, role, PointName(iteration, 1)) for role in job.roles]:
            made.enqueue(msgspec.structs.replace(save, problem=problem, loses_work=False))
    made.wait()
    made.check(limit=1)
    assert job.folder().committed == []
