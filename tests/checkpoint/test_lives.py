"""What a folder tells of the lives of its job, and which points they could not load."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from megatron_resume.checkpoint.events import Failed, Finished, Stopped
from megatron_resume.checkpoint.failures import FAILURES, Failure, write_failure
from megatron_resume.checkpoint.layout import PointName, attempt_path
from megatron_resume.checkpoint.leases import Lease, claim
from megatron_resume.checkpoint.lives import failed_loads, lives
from megatron_resume.resume.budget import is_free, told
from support.job_on_disk import FAILURE, JobOnDisk


def fails(job: JobOnDisk, attempt: int, *, life: str = "life", **fields: Any) -> Path:
    failure = msgspec.structs.replace(FAILURE, attempt=attempt, after=attempt, time_s=float(attempt))
    return write_failure(job.root, life, msgspec.structs.replace(failure, **fields))


def states(job: JobOnDisk) -> list[tuple[int, str]]:
    return [(life.attempt, life.state) for life in lives(job.root)]


def test_a_folder_that_is_not_there_tells_of_no_life(tmp_path: Path) -> None:
    assert list(lives(tmp_path / "nothing")) == []


def test_lives_come_newest_first_each_with_its_end_and_its_commits(job: JobOnDisk) -> None:
    for ending in (Finished(), Failed(error="KeyError", message="x", exit_code=1), Stopped(reason="S", exit_code=202)):
        job.tell(job.attempt(), ending)
    job.save(2, 4)
    job.save(2, 6)
    assert states(job) == [(3, "stopped"), (2, "failed"), (1, "finished")]
    assert [life.commits for life in lives(job.root)] == [0, 2, 0]


def test_one_that_recorded_nothing_was_killed_and_the_next_start_says_so(job: JobOnDisk) -> None:
    for _ in range(3):
        attempt = job.attempt()
    dead = msgspec.structs.replace(job.launch(), host="another", boot="another boot")
    claim(job.root, attempt, "policy", Lease(holder=dead, start="", iteration=42))
    newest = next(lives(job.root))
    assert (newest.state, newest.iteration) == ("killed", 42)
    assert told(newest) == "attempt 3 ended at iteration 42 without a record: killed, out of memory, or lost node"


def cause_of_newest(job: JobOnDisk) -> Failure:
    cause = next(lives(job.root)).cause
    assert cause is not None
    return cause


def test_of_several_ranks_the_first_that_failed_is_the_cause(job: JobOnDisk) -> None:
    attempt = job.attempt()
    fails(job, attempt, rank=0, time_s=20.0, error="ConnectionError")
    fails(job, attempt, rank=1, time_s=10.0)
    fails(job, attempt, rank=2, time_s=5.0, how="killed", signal="SIGTERM", error="", exit_code=None)
    assert cause_of_newest(job).rank == 1


@pytest.mark.parametrize(
    "lost",
    [
        {"error": "RuntimeError", "message": "gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer"},
        {"error": "RuntimeError", "message": "[pair.cc:553] Connection closed by peer [10.0.0.1]:28060"},
        {"error": "RuntimeError", "message": "DataLoader worker (pid 7) is killed by signal: Terminated. "},
        {"error": "DistBackendError", "message": "NCCL error: remote process exited or there was a network error"},
    ],
)
def test_a_rank_that_lost_its_peer_is_not_the_cause_although_it_recorded_that_first(
    lost: dict[str, str], job: JobOnDisk
) -> None:
    attempt = job.attempt()
    fails(job, attempt, rank=1, time_s=10.0, **lost)
    assert cause_of_newest(job).rank == 1, "while nothing else is known"
    fails(job, attempt, rank=2, time_s=10.1, how="killed", signal="SIGTERM", error="", exit_code=None)
    assert cause_of_newest(job).rank == 1
    fails(job, attempt, rank=0, time_s=10.2, how="killed", signal="SIGKILL", error="", exit_code=None)
    assert cause_of_newest(job).rank == 0


def test_of_several_that_hang_the_oldest_progress_is_the_cause(job: JobOnDisk) -> None:
    attempt = job.attempt()
    fails(job, attempt, rank=0, time_s=100.0, how="hang", silent_s=60.0)
    fails(job, attempt, rank=1, time_s=101.0, how="hang", silent_s=70.0)
    assert cause_of_newest(job).rank == 1


def test_a_rank_that_left_with_everything_saved_makes_the_life_free_whatever_became_of_the_others(
    job: JobOnDisk,
) -> None:
    attempt = job.attempt()
    job.tell(attempt, Failed(error="RuntimeError", message="connection closed by peer", exit_code=1))
    fails(job, attempt, rank=0, time_s=1.0)
    fails(job, attempt, rank=1, time_s=2.0, how="stopped", exit_code=202, error="", message="")
    assert is_free(next(lives(job.root)))


def test_a_life_that_ended_before_its_attempt_stands_where_it_was(job: JobOnDisk) -> None:
    job.tell(job.attempt(), Finished())
    fails(job, 0, after=1, life="early")
    job.tell(job.attempt(), Finished())
    assert states(job) == [(2, "finished"), (0, "failed"), (1, "finished")]


def test_a_record_that_is_damaged_is_left_out(job: JobOnDisk) -> None:
    attempt = job.attempt()
    fails(job, attempt, rank=0).write_text("{")
    fails(job, attempt, rank=1)
    assert cause_of_newest(job).rank == 1


def test_a_folder_of_failures_that_is_a_link_is_not_followed(job: JobOnDisk, tmp_path: Path) -> None:
    attempt = job.attempt()
    record = fails(job, attempt)
    elsewhere = tmp_path / "elsewhere"
    record.parent.rename(elsewhere)
    (attempt_path(job.root, attempt) / FAILURES).symlink_to(elsewhere)
    assert next(lives(job.root)).cause is None


def test_what_is_stored_of_a_failure_can_be_read_by_a_person(job: JobOnDisk) -> None:
    record = json.loads(fails(job, job.attempt(), loading=PointName(4, 1)).read_text())
    assert (record["error"], record["phase"], record["loading"]) == ("RuntimeError", "train", [4, 1])


def test_a_point_that_could_not_be_loaded_is_named_with_how_that_failed(job: JobOnDisk) -> None:
    point = job.save(job.attempt(), 4)
    fails(job, job.attempt(point), loading=point)
    assert failed_loads(job.root) == {
        point: "loading it failed in attempt 2 with RuntimeError: the network is down",
    }


def test_what_failed_before_another_end_is_forgotten(job: JobOnDisk) -> None:
    point = job.save(job.attempt(), 4)
    fails(job, job.attempt(point), loading=point)
    fails(job, job.attempt(point))
    assert failed_loads(job.root) == {}


def test_a_death_from_outside_says_nothing_of_the_point_that_was_loaded(job: JobOnDisk) -> None:
    point = job.save(job.attempt(), 4)
    attempt = job.attempt(point)
    for fields in (
        {"how": "killed", "signal": "SIGKILL", "exit_code": None, "error": ""},
        {"how": "killed", "signal": "SIGTERM", "exit_code": None, "error": ""},
        {"how": "killed", "signal": "SIGABRT", "exit_code": None, "error": ""},  # NCCL's watchdog, after a lost peer
        {"how": "killed", "signal": "SIGBUS", "exit_code": None, "error": ""},  # a full /dev/shm
        {"how": "hang", "error": "hang", "exit_code": 201},
        {"error": "OutOfMemoryError"},
        {"error": "RuntimeError", "message": "Connection reset by peer"},
        {"error": "OSError", "message": "[Errno 116] Stale file handle: '__0_0.distcp'"},
        {"error": "CheckpointException", "message": "ranks:dict_keys([1])\nOSError: [Errno 24] Too many open files"},
        {"error": "ConfigError", "exit_code": 78},
        {"error": "RejoinError", "exit_code": 203},
    ):
        fails(job, attempt, loading=point, **fields)
        assert failed_loads(job.root) == {}, fields


def test_a_file_that_is_gone_does(job: JobOnDisk) -> None:
    point = job.save(job.attempt(), 4)
    message = "[Errno 2] No such file or directory: '__0_0.distcp'"
    fails(job, job.attempt(point), loading=point, error="FileNotFoundError", message=message)
    assert list(failed_loads(job.root)) == [point]


def test_a_crash_in_native_code_does(job: JobOnDisk) -> None:
    point = job.save(job.attempt(), 4)
    fails(job, job.attempt(point), loading=point, how="killed", signal="SIGSEGV", exit_code=None, error="")
    assert failed_loads(job.root) == {point: "loading it failed in attempt 2 by SIGSEGV"}
