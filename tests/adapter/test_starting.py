"""Who may start on a folder: real processes that live, die, are stopped, and start at once."""

import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from megatron_resume.adapter.ending import naming_the_path
from megatron_resume.checkpoint import atomic, fencing
from megatron_resume.checkpoint.attempts import attempt_numbers, has_started
from megatron_resume.checkpoint.endings import process_ends
from megatron_resume.checkpoint.events import Stopped, read_events
from megatron_resume.checkpoint.folder import read_start
from megatron_resume.errors import ConfigError
from support.eventful_job import EventfulJob
from support.job_on_disk import JobOnDisk, contents
from support.pool import MEGATRON, Pool, Program

PROGRAM = Path(__file__).with_name("starting.py")


class Started:
    """A process running starting.py; `said` is its first line."""

    def __init__(self, pool: Pool, root: Path, *words: str, env: dict[str, str] | None = None):
        self.process = Program(pool, PROGRAM, str(root), *words, environ={**os.environ, **(env or {})}, kind=MEGATRON)

    @property
    def said(self) -> str:
        return self.process.stdout.readline().strip()

    def end(self, number: int = signal.SIGKILL) -> int:
        self.process.send_signal(number)
        return self.process.wait()


@pytest.fixture
def begin(pool: Pool, job: JobOnDisk) -> Iterator[Callable[..., Started]]:
    running: list[Started] = []

    def start(*words: str, env: dict[str, str] | None = None) -> Started:
        running.append(Started(pool, job.root, *words, env=env))
        return running[-1]

    yield start
    for started in running:
        started.process.close()


def state_of(job: JobOnDisk, attempt: int) -> dict[tuple[str, ...], str]:
    return {end.roles: end.state for end in process_ends(job.root, attempt, job.roles)}


def test_a_second_start_names_who_holds_the_job_and_leaves_no_trace(
    job: JobOnDisk, begin: Callable[..., Started]
) -> None:
    first = begin("hold")
    assert first.said == "attempt 1 joined=False"
    before = contents(job.root)
    second = begin()
    said = second.said
    assert second.process.wait() == 78
    assert f"policy is held by process {first.process.pid} on {os.uname().nodename}, attempt 1" in said
    assert "--take-over" in said
    after = contents(job.root)
    assert {k: v for k, v in after.items() if "lease" not in k} == {k: v for k, v in before.items() if "lease" not in k}


def test_iterations_to_run_again_are_also_those_that_only_a_failed_rank_recorded(
    eventful: EventfulJob, begin: Callable[..., Started]
) -> None:
    eventful.begins(0)
    eventful.is_lost_with_its_node(renewals=1, iteration=2)
    eventful.is_killed(100, iteration=5)
    assert begin("take_over").said == "attempt 2 joined=False"
    assert read_start(eventful.root, 2).lost_iterations == 5


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_after_the_holder_is_dead_the_next_start_is_not_refused(begin: Callable[..., Started], end: int) -> None:
    first = begin("hold")
    assert first.said == "attempt 1 joined=False"
    first.end(end)
    assert begin().said == "attempt 2 joined=False"


def test_a_stopped_holder_still_holds_the_job_and_can_be_taken_over(
    job: JobOnDisk, begin: Callable[..., Started]
) -> None:
    first = begin("hold", "lease_time=3")
    assert first.said == "attempt 1 joined=False"
    first.process.send_signal(signal.SIGSTOP)
    assert begin().said.startswith("HeldError")
    assert begin("take_over", "hold").said == "attempt 2 joined=False"
    first.process.send_signal(signal.SIGCONT)
    assert first.process.wait() == 203, "it sees at its next renewal that it was superseded"
    (event,) = read_events(job.events(1)).events
    assert isinstance(event, Stopped)
    assert event.reason == "attempt 1 was superseded by attempt 2; restart to join it"
    assert state_of(job, 2) == {("policy", "value"): "running"}


def test_a_holder_on_another_machine_is_judged_by_its_lease(begin: Callable[..., Started]) -> None:
    there = ("lease_time=9", "other_machine=A")
    first = begin("hold", *there)
    assert first.said == "attempt 1 joined=False"
    assert begin("lease_time=9").said.startswith("HeldError"), "its lease changes"
    first.end()
    assert begin("lease_time=9").said == "attempt 2 joined=False", "its lease stands still"


def test_a_launcher_that_restarts_its_job_on_this_machine_waits_for_nothing(begin: Callable[..., Started]) -> None:
    job = {"TORCHELASTIC_RUN_ID": "run", "TORCHELASTIC_RESTART_COUNT": "0"}
    first = begin("hold", "lease_time=600", env=job)
    assert first.said == "attempt 1 joined=False"
    first.end()
    again = begin("lease_time=600", env={**job, "TORCHELASTIC_RESTART_COUNT": "1"})
    assert again.said == "attempt 2 joined=False"


def test_two_launches_of_one_name_on_two_machines_do_not_take_the_job_from_each_other(
    begin: Callable[..., Started],
) -> None:
    """As by `torchrun --rdzv-id run`, typed twice: each restarts its ranks for itself."""
    job = {"TORCHELASTIC_RUN_ID": "run"}
    holder = begin("hold", "lease_time=6", "other_machine=A", env={**job, "TORCHELASTIC_RESTART_COUNT": "0"})
    assert holder.said == "attempt 1 joined=False"
    for restart in ("0", "1", "2"):
        again = begin("lease_time=1", env={**job, "TORCHELASTIC_RESTART_COUNT": restart})
        assert again.said.startswith("HeldError: start refused: policy is held by process")
    assert holder.process.poll() is None


def test_a_holder_that_ended_of_its_own_will_is_not_waited_for(begin: Callable[..., Started]) -> None:
    first = begin("lease_time=600", "other_machine=A")
    assert first.said == "attempt 1 joined=False"
    assert first.process.wait() == 0
    assert begin("lease_time=600").said == "attempt 2 joined=False"


def test_of_many_starts_at_once_one_at_most_holds_the_job(job: JobOnDisk, begin: Callable[..., Started]) -> None:
    for _ in range(3):
        starts = [begin("hold") for _ in range(6)]
        said = [started.said for started in starts]
        holders = [s for s, line in zip(starts, said, strict=True) if line.startswith("attempt")]
        assert len(holders) <= 1, said
        assert all(line.split(":")[0] in ("HeldError", "RejoinError") for line in said if line[:7] != "attempt"), said
        begun = [n for n in attempt_numbers(job.root) if has_started(job.root, n)]
        if holders:
            assert said[starts.index(holders[0])] == f"attempt {begun[-1]} joined=False"
        for started in starts:
            started.process.kill()
            started.process.wait()


def test_jobs_of_two_roles_settle_in_one_attempt(begin: Callable[..., Started]) -> None:
    assert begin("role=policy", "hold").said == "attempt 1 joined=False"
    assert begin("role=value", "hold").said == "attempt 1 joined=True"
    assert begin("role=value").said.startswith("HeldError: start refused: value is held by process")


def test_a_restarted_role_opens_a_new_attempt_and_the_other_rejoins(
    job: JobOnDisk, begin: Callable[..., Started]
) -> None:
    policy = begin("role=policy", "hold", "lease_time=3")
    assert policy.said == "attempt 1 joined=False"
    value = begin("role=value", "hold", "lease_time=3")
    assert value.said == "attempt 1 joined=True"
    value.end()
    assert begin("role=value", "hold", "lease_time=3").said == "attempt 2 joined=False"
    assert policy.process.wait() == 203
    assert begin("role=policy", "hold", "lease_time=3").said == "attempt 2 joined=True"
    assert state_of(job, 1) == {("policy",): "stopped", ("value",): "killed"}
    assert state_of(job, 2) == {("policy",): "running", ("value",): "running"}


@pytest.mark.parametrize("lacking", ["link", "symlink"])
def test_a_file_system_without_links_is_said_to_lack_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    def refuse(source: Path, target: Path, **_: bool) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(source), None, str(target))

    make = {
        "link": lambda: atomic.write_new(tmp_path / "start.json", b""),
        "symlink": lambda: fencing.make_own_name(tmp_path, 1, "policy", "/save"),
    }
    (tmp_path / "attempts" / "0001").mkdir(parents=True)
    monkeypatch.setattr(os, lacking, refuse)
    with pytest.raises(ConfigError, match="lacks hard or symbolic links"), naming_the_path(tmp_path):
        make[lacking]()
