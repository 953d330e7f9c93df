"""Digests are recorded after a commit by a thread for which nobody waits and which never hurts."""

import logging
import multiprocessing
import os
import threading
from pathlib import Path

import pytest

from megatron_resume.adapter import saving, start
from megatron_resume.adapter.digester import Digester
from megatron_resume.adapter.lease_keeper import LeaseKeeper
from megatron_resume.adapter.session import Session
from megatron_resume.adapter.writer import Writer
from megatron_resume.checkpoint import model_files
from megatron_resume.checkpoint.digests import read_digests
from megatron_resume.checkpoint.layout import DIGESTS, PointName, digests_path, point_path
from megatron_resume.checkpoint.records import Receipt, read
from megatron_resume.checkpoint.removal import remove
from megatron_resume.config import ResumeConfig
from support.finished_saves import finished
from support.job_on_disk import JobOnDisk
from support.waiting import until

HUGE = 1 << 40  # bytes, of a file without blocks: nobody reads that to its end


@pytest.fixture(autouse=True)
def every_shard_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "DIGEST_UP_TO", 30)


def writer(job: JobOnDisk) -> Writer:
    return Writer(
        job.root, job.roles, stop_if_superseded=lambda: None, after_commit=[Digester(job.root, job.roles).committed]
    )


def save(job: JobOnDisk, made: Writer, iteration: int, *, size: int | None = None) -> None:
    saves = [finished(job, role, PointName(iteration, 1)) for role in job.roles]
    if size is not None:
        os.truncate(job.model("policy", iteration) / "__0_0.distcp", size)
    for one in saves:
        made.enqueue(one)
    made.wait()
    assert PointName(iteration, 1) in job.folder().committed


def recorded(job: JobOnDisk, iteration: int, role: str = "policy") -> Path:
    return digests_path(job.root, PointName(iteration, 1), role)


def test_after_a_commit_the_digest_of_every_large_file_is_recorded(job: JobOnDisk) -> None:
    save(job, writer(job), 2)
    until(lambda: all(recorded(job, 2, role).exists() for role in job.roles))
    for role in job.roles:
        receipt = read(point_path(job.root, PointName(2, 1)) / f"{role}.json", Receipt)
        digests = read_digests(job.root, receipt)
        assert digests is not None
        assert {file.path: file.sha256 for file in digests.files} == {
            "__0_0.distcp": model_files.sha256_of(job.model(role, 2) / "__0_0.distcp")
        }, "its .metadata is small, and in the receipt"


def test_points_that_come_faster_than_they_are_read_are_left_out_and_none_is_dropped_half_way(job: JobOnDisk) -> None:
    made, before = writer(job), bytes_read()
    save(job, made, 2, size=1 << 29)
    until(lambda: bytes_read() - before > 64 << 20)
    for iteration in (4, 6, 8):
        save(job, made, iteration)
    until(lambda: recorded(job, 8, "value").exists())
    assert [recorded(job, iteration).exists() for iteration in (2, 4, 6, 8)] == [True, False, False, True]


def test_a_process_does_not_stay_for_digests(job: JobOnDisk) -> None:
    process = multiprocessing.get_context("forkserver").Process(target=save_what_is_huge_and_leave, args=(job,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert job.folder().committed == [PointName(2, 1)]
    assert not (job.root / DIGESTS).exists()


def save_what_is_huge_and_leave(job: JobOnDisk) -> None:
    save(job, writer(job), 2, size=HUGE)
    until(lambda: bytes_read() > 64 << 20)


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def test_a_superseded_attempt_records_nothing(
    job: JobOnDisk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "megatron_resume")
    assert (job.attempt(), job.attempt(PointName(2, 1))) == (1, 2)
    save(job, writer(job), 2)
    until(lambda: "before a newer attempt began" in caplog.text)
    assert not (job.root / DIGESTS).exists()


def test_an_attempt_that_is_superseded_meanwhile_stops_reading(
    job: JobOnDisk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "megatron_resume")
    job.attempt()
    save(job, writer(job), 2, size=HUGE)
    job.attempt(PointName(2, 1))
    until(lambda: "before a newer attempt began" in caplog.text)
    assert not (job.root / DIGESTS).exists()


def test_a_point_that_retention_takes_meanwhile_is_no_failure(job: JobOnDisk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "megatron_resume")
    job.attempt()
    made = writer(job)
    save(job, made, 2, size=HUGE)
    before = bytes_read()
    until(lambda: bytes_read() - before > 64 << 20)
    list(remove(job.root, [PointName(2, 1)], lambda receipt: job.save_folder(receipt.role), attempt=1, models=True))
    until(lambda: "not finished before it was removed" in caplog.text)
    assert not (job.root / DIGESTS).exists()
    save(job, made, 4)
    until(lambda: recorded(job, 4, "value").exists())
    assert warnings(caplog) == []


def test_a_point_that_retention_took_before_its_turn_is_no_failure(
    job: JobOnDisk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "megatron_resume")
    job.attempt()
    Digester(job.root, job.roles).committed(PointName(2, 1))
    until(lambda: "not finished before it was removed" in caplog.text)
    assert warnings(caplog) == []


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_errors_are_one_warning_and_points_are_committed_all_the_same(
    job: JobOnDisk, caplog: pytest.LogCaptureFixture
) -> None:
    (job.root / DIGESTS).touch()  # where a folder is due
    made = writer(job)
    save(job, made, 2)
    until(lambda: warnings(caplog))
    save(job, made, 4)
    (job.root / DIGESTS).unlink()
    save(job, made, 6)
    until(lambda: recorded(job, 6, "value").exists())
    (line,) = warnings(caplog)
    assert line.startswith("digests of iteration 2 of attempt 1 are not recorded: ")


@pytest.mark.parametrize("wanted", [True, False])
def test_the_thread_is_there_where_it_was_asked_for(job: JobOnDisk, wanted: bool) -> None:
    config = ResumeConfig(data_checkpoint_path=str(job.root), resume_digests=wanted)
    begun = start.begin_or_join(job.root, config, start.watch(job.root, config))
    keeper = LeaseKeeper(job.root, begun.start.attempt, begun.leases, config.resume_lease_time)
    before = threads()
    saving._writer(Session(config, job.root, lease_keeper=keeper))
    keeper.release()
    assert threads() - before == int(wanted)


def threads() -> int:
    return [thread.name for thread in threading.enumerate()].count("megatron_resume digests")
