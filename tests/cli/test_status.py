"""`status` tells in words and in JSON how each attempt ended; the endings come from real files."""

import json

import pytest

from megatron_resume.checkpoint.events import Failed, Finished, Stopped
from megatron_resume.checkpoint.layout import PointName
from megatron_resume.checkpoint.leases import Lease, claim
from megatron_resume.checkpoint.records import Launch
from megatron_resume.cli.status import SHOWN_ATTEMPTS, status
from support.eventful_job import EventfulJob
from support.job_on_disk import JobOnDisk


@pytest.fixture
def ended(job: JobOnDisk) -> JobOnDisk:
    """A job of three attempts that ended, and one on another machine of which nothing is known."""
    first = job.attempt()
    job.save(first, 2)
    job.tell(first, Failed(error="RuntimeError", message="NCCL timeout\n  on rank 3", exit_code=1))
    job.tell(job.attempt(PointName(2, first)), Stopped(reason="SIGTERM", exit_code=0))
    third = job.attempt(PointName(2, first))
    job.save(third, 4)
    job.tell(third, Finished())
    claim(job.root, job.attempt(PointName(4, third)), "policy", Lease(holder=job.launch(), start=""))
    return job


def lines(capsys: pytest.CaptureFixture[str], begin: str) -> list[str]:
    """What was printed from the first line on that begins so, each sentence in one line."""
    out = capsys.readouterr().out
    return [line for line in out[out.index(begin) :].splitlines() if line]


def test_each_ending_is_a_line(
    ended: JobOnDisk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    status(ended.root, json=False)
    assert lines(capsys, "attempt 1:")[:4] == [
        "attempt 1: failed with exit code 1: RuntimeError: NCCL timeout (last commit at iteration 2)",
        "attempt 2: stopped with exit code 0: SIGTERM (nothing committed)",
        "attempt 3: finished (last commit at iteration 4)",
        "attempt 4: no ending recorded: process 1 on node0 was killed, or still runs (nothing committed)",
    ]


def test_of_a_rank_that_was_killed_its_record_is_told_and_not_that_rank_0_is_gone(
    eventful: EventfulJob, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    eventful.begins(0)
    eventful.is_lost_with_its_node(renewals=1, iteration=3)
    assert "process 1 on node0" in _said_of_attempt_1(eventful, capsys)
    eventful.is_killed(100, iteration=3)
    said = "attempt 1: killed: rank 3 on node7 ended in train by SIGKILL (nothing committed)"
    assert _said_of_attempt_1(eventful, capsys) == said


def test_the_recorded_cause_of_a_start_that_came_to_no_attempt_is_told(
    eventful: EventfulJob, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    eventful.fails_before_its_attempt(100, "life")
    status(eventful.root, json=False)
    told, *_ = lines(capsys, "a start before its first load")
    assert "rank 3 on node7 failed in train with OSError: no network" in told
    eventful.begins(200)
    status(eventful.root, json=False)
    assert "a start before its first load" not in capsys.readouterr().out, "it is past"


@pytest.mark.parametrize("roles", [(), ("policy", "value")])
def test_the_recorded_cause_of_a_set_up_that_failed_is_told(
    eventful: EventfulJob, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, roles: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    eventful.begins(0)
    for pid, role in enumerate(roles, start=1):
        holder = Launch(job="job", restart=0, counts=False, host="node0", pid=pid, boot="", started="")
        claim(eventful.root, 1, role, Lease(holder=holder, start=""))
    eventful.is_recorded(10, 0, how="error", error="OSError", message="no network")
    status(eventful.root, json=False)
    assert any("failed in train with OSError: no network" in line for line in lines(capsys, "attempt 1: "))


def _said_of_attempt_1(job: JobOnDisk, capsys: pytest.CaptureFixture[str]) -> str:
    status(job.root, json=False)
    return lines(capsys, "attempt 1:")[0]


def test_json_has_the_whole_message_of_every_attempt(ended: JobOnDisk, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(SHOWN_ATTEMPTS):
        ended.attempt(PointName(4, 3))
    status(ended.root, json=True)
    attempts = json.loads(capsys.readouterr().out)["attempts"]
    assert len(attempts) == 4 + SHOWN_ATTEMPTS
    (process,) = attempts[0]["processes"]
    assert process["event"]["message"] == "NCCL timeout\n  on rank 3"
    assert (process["state"], process["event"]["exit_code"], attempts[0]["last_commit"]) == ("failed", 1, 2)
    assert [attempt["processes"] for attempt in attempts[4:]] == [[]] * SHOWN_ATTEMPTS


def test_what_events_hold_is_shown_and_not_obeyed(
    job: JobOnDisk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    job.tell(job.attempt(), Failed(error="X", message="[red]\x1b[31m", exit_code=1))
    job.events(1).write_bytes(job.events(1).read_bytes() + b"nonsense\n")
    status(job.root, json=False)
    told = lines(capsys, "attempt 1:")
    assert told[0] == "attempt 1: failed with exit code 1: X: [red]\\x1b[31m (nothing committed)"
    assert told[1].startswith("attempt 1: line 2 of ") and "policy.events.jsonl is damaged: " in told[1]


def test_jobs_of_a_role_each_have_a_line_each(
    job: JobOnDisk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    attempt = job.attempt()
    for role, host in (("policy", "node0"), ("value", "node1")):
        holder = type(job.launch())(job="job", restart=0, counts=False, host=host, pid=7, boot="", started="")
        claim(job.root, attempt, role, Lease(holder=holder, start=""))
    job.tell(attempt, Finished())
    status(job.root, json=False)
    assert lines(capsys, "attempt 1")[:2] == [
        "attempt 1, policy: finished (nothing committed)",
        "attempt 1, value: no ending recorded: process 7 on node1 was killed, or still runs (nothing committed)",
    ]
