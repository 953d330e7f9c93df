"""How a rank ended is recorded by its watchdog, for `launch` and for the next lives of the job."""

import contextlib
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron_resume.checkpoint.failures import Failure, failures_path, read_failures, write_failure
from megatron_resume.checkpoint.lives import cause_of, lives
from megatron_resume.watch import kernel, leftover
from megatron_resume.watch.endings import VARIABLE as ENDINGS
from support.job_on_disk import JobOnDisk
from support.waiting import PATIENCE_S, until
from support.watched_ranks import Ranks


def cause(ranks: Ranks) -> Failure:
    until(lambda: list(lives(ranks.root)))
    (life,) = lives(ranks.root)
    assert life.cause is not None
    return life.cause


def test_an_exception_is_recorded_with_phase_and_iteration(ranks: Ranks) -> None:
    (rank,) = ranks.start("fails")
    assert rank.end() == 1
    found = cause(ranks)
    assert (found.how, found.error, found.message, found.exit_code) == ("error", "KeyError", "'no such prompt'", 1)
    assert (found.phase, found.iteration, found.rank, found.pid) == ("rollout", 7, 0, rank.process.pid)
    assert found.trained_s > 0
    assert not found.fatal, "training had begun"
    assert "Traceback" in rank.said, "Python still reports it"


def test_a_signal_is_recorded_by_its_name(ranks: Ranks) -> None:
    (rank,) = ranks.start("is_killed")
    assert rank.end() == -signal.SIGKILL
    found = cause(ranks)
    assert (found.how, found.signal, found.exit_code, found.phase) == ("killed", "SIGKILL", None, "train")
    assert ranks.endings[0].exit_code == 128 + signal.SIGKILL


def test_an_exit_code_is_recorded_with_the_phase_in_which_it_was_asked_for(ranks: Ranks) -> None:
    (rank,) = ranks.start("exits_with_7")
    assert rank.end() == 7
    found = cause(ranks)
    assert (found.how, found.error, found.exit_code, found.phase) == ("error", "", 7, "evaluate")


def test_a_rank_that_ends_before_its_watchdog_looks_is_recorded_all_the_same(ranks: Ranks) -> None:
    (rank,) = ranks.start("is_refused_at_once")
    assert rank.process.wait(PATIENCE_S) == 70  # collected: nobody else can tell its exit code any more
    while not ranks.endings:
        os.sched_yield()
    (ending,) = ranks.endings
    assert (ending.error, ending.exit_code, ending.fatal) == ("CrashLoopError", 70, True)


def test_a_refusal_before_the_attempt_is_no_life_of_the_job(ranks: Ranks) -> None:
    (rank,) = ranks.start("is_refused_at_once")
    rank.end()
    assert list(lives(ranks.root)) == []


def test_nor_is_a_rank_that_was_told_to_end_before_the_attempt(ranks: Ranks) -> None:
    (rank,) = ranks.start("sleeps_in_setup")
    rank.until("hangs")
    os.kill(rank.process.pid, signal.SIGTERM)
    rank.end()
    assert list(lives(ranks.root)) == []


def test_nor_is_a_rank_that_ends_in_whatever_way_beside_a_refused_one(ranks: Ranks) -> None:
    refused, other = ranks.start("is_refused_when_told", "sleeps_in_setup")
    other.until("hangs")
    other.until_watched()
    assert refused.go() == 70
    os.kill(other.process.pid, signal.SIGKILL)
    other.end()
    until(lambda: len(ranks.endings) == 2)  # the other watchdog may be slower
    assert {ending.exit_code for ending in ranks.endings} == {70, 128 + signal.SIGKILL}
    assert list(lives(ranks.root)) == []


def test_an_end_that_is_well_is_no_failure(ranks: Ranks) -> None:
    (rank,) = ranks.start("finishes")
    assert rank.end() == 0
    assert ranks.endings == []
    assert list(lives(ranks.root)) == []


def test_a_missing_file_during_the_set_up_is_fatal(ranks: Ranks) -> None:
    (rank,) = ranks.start("misses_a_file")
    rank.end()
    assert cause(ranks).fatal
    assert ranks.endings[0].fatal


def test_what_ends_an_attempt_is_kept_with_it(ranks: Ranks, job: JobOnDisk) -> None:
    number = job.attempt()
    (rank,) = ranks.start("fails", ROOT=str(job.root), ATTEMPT=str(number))
    rank.end()
    (life,) = lives(job.root)
    assert (life.attempt, life.state, life.iteration) == (number, "failed", 7)
    assert life.cause is not None
    assert life.cause.error == "KeyError"


def test_a_folder_that_cannot_be_written_is_said_and_launch_is_told_all_the_same(ranks: Ranks) -> None:
    nowhere = ranks.folder / "file"
    nowhere.touch()
    (rank,) = ranks.start("fails", ROOT=str(nowhere / "data_checkpoint"))
    rank.end()
    assert f"how rank 0 ended cannot be recorded in {nowhere}" in rank.said
    assert ranks.endings[0].error == "KeyError"


def failure(rank: int, time_s: float, **changed: object) -> Failure:
    found: dict[str, object] = {
        "rank": rank,
        "time_s": time_s,
        "host": "node0",
        "pid": 1,
        "job": "job",
        "attempt": 1,
        "after": 1,
        "how": "error",
        "error": "",
        "message": "",
        "exit_code": 1,
        "signal": None,
        "fatal": False,
        "phase": "train",
        "iteration": 3,
        "silent_s": 1.0,
        "trained_s": 9.0,
        "loading": None,
        "versions": {},
        "kernel": None,
        **changed,
    }
    return Failure(**found)  # type: ignore[arg-type]


TERMINATED = {"how": "killed", "exit_code": None, "signal": "SIGTERM"}


@pytest.mark.parametrize(
    ("failures", "culprit"),
    [
        ([failure(0, 5.0), failure(1, 4.0)], 1),
        ([failure(0, 4.0, **TERMINATED), failure(1, 5.0)], 1),
        ([failure(0, 4.0, **TERMINATED), failure(1, 5.0, **TERMINATED)], 0),
        ([failure(0, 4.0, how="hang", silent_s=10.0), failure(1, 4.1, how="hang", silent_s=10.5)], 1),
    ],
    ids=["the first", "not what the launcher ended", "ended from outside", "the oldest progress"],
)
def test_the_cause_is_the_failure_that_the_others_follow_from(
    tmp_path: Path, failures: list[Failure], culprit: int
) -> None:
    for one in failures:
        write_failure(tmp_path, "", one)
    found = cause_of(read_failures(failures_path(tmp_path, 1, "")))
    assert found is not None
    assert found.rank == culprit


def test_a_damaged_record_hides_no_other(tmp_path: Path) -> None:
    path = write_failure(tmp_path, "", failure(0, 4.0))
    path.with_name("rank_1.json").write_text("{")
    path.with_name("rank_2.json").symlink_to("/dev/zero")
    assert [one.rank for one in read_failures(path.parent)] == [0]


def test_the_line_of_the_kernel_about_memory_is_found() -> None:
    pid = uuid.uuid4().int % 10**9 + 5_000_000  # of no process
    line = f"Out of memory: Killed process {pid} (python) total-vm:1kB"
    try:
        Path("/dev/kmsg").write_text(f"megatron_resume test: {line}\n")
    except OSError:
        pytest.skip("only root may write to the kernel's log")
    found = kernel.about_memory(pid, kernel.out_of_memory_kills())
    assert found is not None
    assert line in found
    assert kernel.about_memory(pid // 10, kernel.out_of_memory_kills()) is None


def pid_of(ranks: Ranks, name: str) -> int:
    return int((ranks.folder / name).read_text())


def lives_still(ranks: Ranks, name: str) -> bool:
    return kernel.state(pid_of(ranks, name)) not in ("ended", "gone")


@pytest.fixture
def nobody_is_left(ranks: Ranks) -> Iterator[None]:
    yield
    for name in ("left", "apart", "tracker"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid_of(ranks, name), signal.SIGKILL)


@pytest.mark.usefixtures("nobody_is_left")
def test_what_a_killed_rank_leaves_behind_is_ended_where_no_launch_does_it(ranks: Ranks) -> None:
    (rank,) = ranks.start("leaves_somebody_behind_and_is_killed", **{ENDINGS: "", "SHORTER": '{"by_itself_s": 0.5}'})
    assert rank.end() == -signal.SIGKILL
    assert cause(ranks).how == "killed", "which is recorded first"
    until(lambda: not lives_still(ranks, "left") and not lives_still(ranks, "tracker"))
    assert lives_still(ranks, "apart"), "it made a session of its own"


def test_nobody_is_ended_whose_session_has_a_living_leader(ranks: Ranks) -> None:
    """As where the number of a dead rank is that of another process by now."""
    (rank,) = ranks.start("rolls_out", **{ENDINGS: ""})
    rank.until("waits")
    assert leftover.leads_a_session(rank.process.pid)
    leftover.end_session(rank.process.pid, by_itself_s=0.2)
    assert rank.go() == 0


@pytest.mark.usefixtures("nobody_is_left")
def test_what_a_rank_leaves_behind_that_ended_well_is_its_own_business(ranks: Ranks) -> None:
    (rank,) = ranks.start("leaves_somebody_behind_and_finishes", **{ENDINGS: ""})
    assert rank.end() == 0
    assert lives_still(ranks, "left")
