"""Which typed options a resume goes without, and for whom they were meant."""

from pathlib import Path
from typing import Any

import pytest

from megatron_resume.checkpoint.folder import ResumePoint
from megatron_resume.resume.base_options import Ignored, handed_on, ignored, of_first_start
from support.job_on_disk import JobOnDisk

NOTHING: dict[str, Any] = {"load": None, "ckpt_step": None, "finetune": False, "no_load_optim": None}


@pytest.fixture
def point(job: JobOnDisk) -> ResumePoint:
    return job.point(job.save(job.attempt(), 6))


def found(point: ResumePoint, first: dict[str, Any] | None = NOTHING, **given: Any) -> Ignored:
    return ignored({**NOTHING, **given}, first, "policy", point)


def test_a_command_without_such_options_ignores_none(point: ResumePoint) -> None:
    assert found(point) == found(point, exit_on_missing_checkpoint=True, load_iteration=-1) == Ignored()


def test_the_folder_of_the_job_and_the_iteration_of_the_point_are_what_is_done(
    point: ResumePoint, tmp_path: Path
) -> None:
    link = tmp_path / "another name"
    link.symlink_to(point.directories["policy"])
    assert found(point, load=str(link), ckpt_step=6) == Ignored()


@pytest.mark.parametrize("name", ["finetune", "no_load_optim", "no_load_rng", "override_ckpt_iteration"])
def test_a_new_option_is_named_with_what_holds_instead(point: ResumePoint, name: str) -> None:
    assert set(found(point, **{name: True}).new) == {name}
    assert found(point, **{name: True}).asks_for is None


def test_options_of_the_first_start_are_for_the_base(point: ResumePoint) -> None:
    options = {"finetune": True, "ckpt_step": 3, "pretrained_checkpoint": "/base"}
    assert found(point, {**NOTHING, **options}, **options) == Ignored(
        ("ckpt_step", "finetune", "pretrained_checkpoint")
    )


def test_with_another_folder_to_load_from_all_of_them_are_for_the_base(point: ResumePoint) -> None:
    assert found(point, load="/base", ckpt_step=3, finetune=True) == Ignored(("load", "ckpt_step", "finetune"))


@pytest.mark.parametrize("own", [True, False])
def test_a_new_step_of_the_jobs_own_folder_is_asked_for(point: ResumePoint, own: bool) -> None:
    load = str(point.directories["policy"]) if own else None
    assert found(point, load=load, ckpt_step=3).asks_for == 3
    assert found(point, {**NOTHING, "ckpt_step": 5}, load=load, ckpt_step=3).asks_for == 3
    assert found(point, {**NOTHING, "ckpt_step": 3}, load=load, ckpt_step=3).asks_for is None


def test_if_nothing_tells_of_the_first_start_a_step_is_warned_of_only(point: ResumePoint) -> None:
    assert found(point, None, ckpt_step=3) == Ignored((), {"ckpt_step": "iteration 6 is loaded"})


def test_every_attempt_hands_the_options_of_the_first_start_on() -> None:
    first = {"load": "/base", "finetune": True, "lr": 1}
    of_a_resume = {"load": "/save", "ckpt_step": 6, "finetune": False, "load_iteration": -1, "lr": 2}
    handed = handed_on(of_a_resume, of_first_start(first))
    assert handed == {"load": "/base", "finetune": True, "lr": 2}
    assert of_first_start(handed) == of_first_start(first)


def test_what_an_earlier_release_recorded_of_a_resume_tells_nothing() -> None:
    changed = {"load": "/save", "load_iteration": -1, "exit_on_missing_checkpoint": True, "lr": 2}
    assert of_first_start(changed) is None
    assert of_first_start({}) is None
    assert handed_on(changed, None) == changed
