"""What this user may not read is named, and refuses the start (78); it may be whole, so nothing is chosen instead."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from megatron_resume.adapter.decision import refusal
from megatron_resume.checkpoint.layout import COMMITTED, START, PointName, attempt_path, point_path
from megatron_resume.checkpoint.records import Request
from megatron_resume.errors import ConfigError
from megatron_resume.resume.choose import Refused, Resume
from support.job_on_disk import JobOnDisk
from support.ordinary_user import as_an_ordinary_user, open_folder

NEWEST = PointName(4, 1)


@pytest.fixture
def open_job() -> Iterator[JobOnDisk]:
    """A job below a folder that every user may enter, unlike pytest's."""
    with open_folder() as base:
        job = JobOnDisk(base)
        attempt = job.attempt()
        job.save(attempt, 2)
        job.save(attempt, NEWEST.iteration)
        yield job


UNREADABLE: dict[str, Callable[[JobOnDisk], Path]] = {
    "point": lambda job: point_path(job.root, NEWEST),
    "manifest": lambda job: point_path(job.root, NEWEST) / COMMITTED,
    "receipt": lambda job: point_path(job.root, NEWEST) / "policy.json",
    "model": lambda job: job.model("value", 4),
    "shard": lambda job: job.model("value", 4) / "__0_0.distcp",
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_a_point_that_may_not_be_read_refuses_the_start_and_names_what_and_the_way_back(
    open_job: JobOnDisk, what: str
) -> None:
    path = UNREADABLE[what](open_job)
    if what == "shard":  # its time and inode would vouch for it
        os.utime(path)
    path.chmod(0)
    with as_an_ordinary_user():
        outcome = open_job.choose()
        back = open_job.choose(Request(iteration=2))
    assert isinstance(outcome, Refused)
    error = refusal(outcome)
    assert error.exit_code == 78
    assert f"{path}" in str(error)
    assert "Permission denied" in str(error)
    assert "--load-data-checkpoint-iteration 2" in str(error)
    assert isinstance(back, Resume)
    assert back.point.name == PointName(2, 1)


def test_an_attempt_that_cannot_be_read_does_not_lead_to_a_fresh_start(open_job: JobOnDisk) -> None:
    (attempt_path(open_job.root, 1) / START).chmod(0)
    with as_an_ordinary_user():
        outcome = open_job.choose()
        named = open_job.choose(Request(iteration=4))
    assert isinstance(outcome, Refused)
    assert refusal(outcome).exit_code == 78
    assert "--load-data-checkpoint-iteration 4" in outcome.reason
    assert isinstance(named, Resume)
    assert named.point.name == NEWEST


def test_save_folders_that_cannot_be_read_refuse_the_start(open_job: JobOnDisk) -> None:
    open_job.save_folder("policy").chmod(0)
    with as_an_ordinary_user():
        outcome = open_job.choose()
    assert isinstance(outcome, Refused)
    assert refusal(outcome).exit_code == 78


def test_attempts_that_cannot_be_looked_into_do_not_lead_to_a_fresh_start(open_job: JobOnDisk) -> None:
    (open_job.root / "attempts").chmod(0o644)
    with as_an_ordinary_user():
        what = f"{attempt_path(open_job.root, 1)} cannot be read: Permission denied"
        assert {number: error.what for number, error in open_job.folder().unread_starts.items()} == {1: what}
        assert isinstance(open_job.choose(), Refused)


def test_a_folder_that_cannot_be_listed_is_refused_by_name(open_job: JobOnDisk) -> None:
    (open_job.root / "attempts").chmod(0)
    with as_an_ordinary_user(), pytest.raises(ConfigError, match="cannot be read"):
        open_job.choose()


def test_a_loop_of_links_as_save_folder_is_passed_over(open_job: JobOnDisk) -> None:
    save = open_job.save_folder("policy")
    save.rename(save.with_name("elsewhere"))
    save.symlink_to(save)
    assert isinstance(open_job.choose(), Refused)
