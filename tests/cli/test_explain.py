"""`explain` says what a start would do, which a real start on the same folder then does."""

import json
import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from megatron_resume.checkpoint.attempts import attempt_numbers
from megatron_resume.checkpoint.launch_key import boot, started
from megatron_resume.checkpoint.layout import PointName
from megatron_resume.checkpoint.leases import Lease, claim
from megatron_resume.checkpoint.records import Launch, Request
from megatron_resume.cli import main
from megatron_resume.cli.explain import examine
from megatron_resume.config import ResumeConfig
from megatron_resume.errors import ConfigError, ResumeError
from megatron_resume.resume.choose import Fresh, Resume
from megatron_resume.resume.overrides import overrides_for
from megatron_resume.roles import TRAINED
from support.job_on_disk import JobOnDisk, contents

pytestmark = pytest.mark.torch

V1 = Path(__file__).parents[1] / "formats" / "v1"
REQUESTS: list[dict[str, Any]] = [
    {},
    {"load_data_checkpoint_iteration": 2},
    {"load_data_checkpoint_iteration": 4},
    {"load_data_checkpoint_iteration": 3},
    {"load_data_checkpoint_attempt": 1},
    {"load_data_checkpoint_attempt": 9},
    {"start_over": True},
]


def really_start(root: Path, asked: Mapping[str, Any]) -> Fresh | Resume | ResumeError:
    """What rank 0 of a job does, up to the begin of its attempt."""
    from megatron_resume.adapter import start

    config = ResumeConfig(data_checkpoint_path=str(root), **asked)
    watch = start.watch(root, config)
    try:
        start.decide_on_rank_0(root, config, watch)
        return start.begin_or_join(root, config, watch).outcome
    except ResumeError as error:
        return error


@pytest.mark.parametrize("asked", REQUESTS, ids=str)
@pytest.mark.parametrize("stored", sorted(path.name for path in V1.iterdir()))
def test_a_start_does_what_was_explained(
    stored: str, asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEGATRON_RESUME_LAUNCH_ID", "a launch of its own")
    shutil.copytree(V1 / stored, tmp_path / "job")
    root = tmp_path / "job" / "data_checkpoint"
    report = examine(root, asked=asked)
    outcome = really_start(root, asked)
    if isinstance(outcome, ResumeError):
        assert (report["outcome"], report["exit_code"]) == ("refused", outcome.exit_code)
        assert report["reason"] in str(outcome)
        return
    assert (report["outcome"], report["exit_code"]) == (type(outcome).__name__.lower(), 0)
    assert report["reason"] == outcome.reason
    assert [(one["iteration"], one["reason"]) for one in report["passed_over"]] == [
        (one.point.iteration, one.reason) for one in outcome.passed_over
    ]
    if isinstance(outcome, Resume):
        assert report["point"] == outcome.point.name._asdict()
        for role in ("policy", "value"):
            changes = {one["argument"]: one["value"] for one in report["arguments"][role]}
            assert changes == overrides_for(role, outcome.point)


@pytest.fixture
def rolled_back(job: JobOnDisk) -> JobOnDisk:
    """Attempt 2 was abandoned for 3, which went back to iteration 2; 4 began fresh and came to nothing."""
    first = job.attempt()
    job.save(first, 2)
    job.save(first, 4)
    job.save(job.attempt(PointName(4, first)), 6)
    third = job.attempt(PointName(2, first), requested=Request(iteration=2))
    job.save(third, 3)
    job.save(third, 5, parts=("policy",))
    job.attempt()
    return job


def test_the_live_line_goes_from_parent_to_parent(rolled_back: JobOnDisk) -> None:
    assert examine(rolled_back.root, asked={})["line"] == [
        {"attempt": 3, "parent": {"iteration": 2, "attempt": 1}, "committed": [3], "not_committed": [5]},
        {"attempt": 1, "parent": None, "committed": [2], "not_committed": []},
    ]


def test_what_is_abandoned_is_told_from_what_never_committed(rolled_back: JobOnDisk) -> None:
    off = examine(rolled_back.root, asked={})["not_on_the_live_line"]
    assert [(one["attempt"], one["committed"], one["state"]) for one in off] == [
        (4, [], "fresh, nothing committed"),
        (2, [6], "abandoned"),
        (1, [4], "abandoned"),
    ]


def test_the_line_of_an_abandoned_attempt_is_shown_when_it_is_asked_for(rolled_back: JobOnDisk) -> None:
    report = examine(rolled_back.root, asked={"load_data_checkpoint_attempt": 2})
    assert report["point"] == {"iteration": 6, "attempt": 2}
    assert [(one["attempt"], one["committed"]) for one in report["line"]] == [(2, [6]), (1, [4, 2])]


def test_a_role_narrows_the_arguments_and_may_be_an_alias(rolled_back: JobOnDisk) -> None:
    everything = examine(rolled_back.root, asked={})["arguments"]
    assert {role: bool(changes) for role, changes in everything.items()} == {
        "policy": True,
        "value": True,
        "reference": False,
        "reward": False,
    }
    assert examine(rolled_back.root, asked={}, role="critic")["arguments"] == {"value": everything["value"]}
    assert examine(rolled_back.root, asked={}, role="rm")["arguments"] == {"reward": []}


def test_every_argument_has_its_reason(rolled_back: JobOnDisk) -> None:
    assert all(one["why"] for one in examine(rolled_back.root, asked={})["arguments"]["policy"])


def test_a_role_that_this_job_does_not_train_is_refused_by_name(tmp_path: Path) -> None:
    job = JobOnDisk(tmp_path, roles=("policy",))
    job.save(job.attempt(), 2)
    assert examine(job.root, asked={})["trained_roles"] == ("policy",)
    with pytest.raises(ConfigError, match="value is not trained in this job; its trained roles are policy"):
        examine(job.root, asked={}, role="value")


def this_process() -> Launch:
    begun = started(os.getpid())
    assert begun is not None
    return Launch(
        job="j", restart=0, counts=False, host=socket.gethostname(), pid=os.getpid(), boot=boot(), started=begun
    )


def hold(job: JobOnDisk, attempt: int, holder: Launch, *roles: str) -> None:
    for role in roles:
        claim(job.root, attempt, role, Lease(holder=holder, start=""))


def test_a_job_that_is_held_refuses_the_start_and_says_what_would_come_otherwise(
    rolled_back: JobOnDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    hold(rolled_back, 4, this_process(), *rolled_back.roles)
    outcome = really_start(rolled_back.root, {})
    assert isinstance(outcome, ResumeError)
    assert main(["explain", str(rolled_back.root), "--json"]) == outcome.exit_code == 78
    report = json.loads(capsys.readouterr().out)
    assert f"start refused: {report['reason']}" == str(outcome)
    assert report["otherwise"] == "resume from iteration 3 of attempt 3: it is the newest whole point"
    assert report["point"] == {"iteration": 3, "attempt": 3}


def test_damage_is_told_before_a_holder_as_a_start_tells_it(job: JobOnDisk) -> None:
    attempt = job.attempt()
    job.save(attempt, 2)
    shutil.rmtree(job.save_folder("value"))
    hold(job, attempt, this_process(), *job.roles)
    outcome = really_start(job.root, {})
    assert isinstance(outcome, ResumeError)
    assert examine(job.root, asked={})["exit_code"] == outcome.exit_code == 65


def test_a_holder_on_another_machine_is_not_waited_for_and_said_to_be_watched_first(rolled_back: JobOnDisk) -> None:
    hold(rolled_back, 4, rolled_back.launch(), *rolled_back.roles)
    report = examine(rolled_back.root, asked={})
    assert (report["outcome"], report["exit_code"]) == ("resume", 0)
    assert (report["watched_first"], report["lease_time"]) == (["policy", "value"], 30)


def test_a_holder_that_is_dead_changes_nothing(rolled_back: JobOnDisk) -> None:
    hold(rolled_back, 4, msgspec.structs.replace(this_process(), started="1"), "policy")
    report = examine(rolled_back.root, asked={})
    assert (report["outcome"], report["watched_first"]) == ("resume", [])


def test_with_a_job_per_role_the_other_one_is_joined(job: JobOnDisk) -> None:
    from megatron_resume.adapter import start

    config = ResumeConfig(data_checkpoint_path=str(job.root), resume_role="policy", trained_roles=TRAINED)
    start.begin_or_join(job.root, config, start.watch(job.root, config))
    report = examine(job.root, asked={}, role="value")
    assert (report["outcome"], report["joins"], report["exit_code"]) == ("fresh", 1, 0)
    held = examine(job.root, asked={}, role="policy")
    assert (held["outcome"], held["exit_code"]) == ("refused", 78)


def test_a_request_that_no_start_takes_is_refused_as_it_would_be(
    rolled_back: JobOnDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(rolled_back.root), "--load-data-checkpoint-iteration", "0"]) == 78
    assert "type for example `--load-data-checkpoint-iteration 40`" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_no_fresh_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "/no/such/folder"]) == 78
    assert "'/no/such/folder' is no folder" in capsys.readouterr().err


def test_explaining_begins_no_attempt(rolled_back: JobOnDisk) -> None:
    before = contents(rolled_back.base)
    for asked in REQUESTS:
        examine(rolled_back.root, asked=asked)
    assert contents(rolled_back.base) == before
    assert attempt_numbers(rolled_back.root) == [1, 2, 3, 4]
