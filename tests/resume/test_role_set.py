"""Which roles a job trains, and which starts would tear its points into halves."""

from pathlib import Path

import msgspec
import pytest

from megatron_resume.adapter.decision import accepted, check_free, decide, may_join, with_roles_of_job
from megatron_resume.checkpoint.attempts import amend_start
from megatron_resume.checkpoint.folder import read_folder, read_start
from megatron_resume.checkpoint.layout import PointName
from megatron_resume.checkpoint.records import Request
from megatron_resume.config import ResumeConfig, resolve
from megatron_resume.errors import ConfigError, HeldError
from megatron_resume.resume.choose import Fresh, Refused, Resume
from megatron_resume.resume.role_set import CALLS, NAMED_BY
from megatron_resume.roles import TRAINED
from support.job_on_disk import JobOnDisk, contents


def config(job: JobOnDisk, **flags: object) -> ResumeConfig:
    return resolve({"data_checkpoint_path": str(job.root), **flags}, {})


def committed(base: Path, *roles: str) -> JobOnDisk:
    job = JobOnDisk(base, roles or TRAINED)
    job.save(job.attempt(), 4)
    return job


def test_without_a_flag_roles_are_those_of_the_resume_points(tmp_path: Path) -> None:
    job = committed(tmp_path)
    found = with_roles_of_job(job.root, config(job))
    assert (found.trained_roles, found.resume_role) == (TRAINED, None)


def test_one_role_of_the_points_is_that_of_the_whole_process(tmp_path: Path) -> None:
    job = committed(tmp_path, "policy")
    found = with_roles_of_job(job.root, config(job))
    assert (found.trained_roles, found.resume_role) == (("policy",), "policy")


def test_one_role_that_the_script_named_is_not_that_of_the_whole_process(tmp_path: Path) -> None:
    job = committed(tmp_path, "policy")
    start = read_start(job.root, 1)
    amend_start(job.root, msgspec.structs.replace(start, config={**start.config, NAMED_BY: CALLS}))
    found = with_roles_of_job(job.root, config(job))
    assert (found.trained_roles, found.resume_role) == (("policy",), None)


@pytest.mark.parametrize("flags", [{}, {"start_over": "true"}, {"enable_resume_training": "false"}], ids=str)
def test_a_fresh_start_does_not_know_its_roles_before_the_script_says(tmp_path: Path, flags: dict[str, str]) -> None:
    job = JobOnDisk(tmp_path) if not flags else committed(tmp_path)
    if not flags:
        job.attempt()  # which died before its first commit
    assert with_roles_of_job(job.root, config(job, **flags)).trained_roles == ()


def outcome(job: JobOnDisk, **flags: object) -> Fresh | Resume | Refused:
    return decide(job.root, config(job, **flags), job.launch("another"))[1]


def test_old_command_lines_for_two_jobs_never_make_half_points(tmp_path: Path) -> None:
    job = JobOnDisk(tmp_path)
    job.save(job.attempt(), 4)
    start = read_start(job.root, 1)
    amend_start(job.root, msgspec.structs.replace(start, config={**start.config, "resume_role": "policy"}))
    before = contents(job.root)
    refused = outcome(job, resume_role="policy")
    assert isinstance(refused, Refused)
    assert "hold policy,value (attempt 1), and this start would train policy" in refused.reason
    for role in TRAINED:
        assert f"--resume-role {role} --trained-roles policy,value" in refused.reason
    assert "--trained-roles policy --start-over" in refused.reason
    assert contents(job.root) == before
    assert isinstance(outcome(job, resume_role="policy", trained_roles="policy,value"), Resume)


def test_a_role_more_is_refused_with_the_command_that_continues(tmp_path: Path) -> None:
    refused = outcome(committed(tmp_path, "policy"), trained_roles="policy,value")
    assert isinstance(refused, Refused)
    assert "to continue, type --trained-roles policy;" in refused.reason


def test_a_point_that_is_named_may_be_continued_by_one_of_its_roles(tmp_path: Path) -> None:
    job = committed(tmp_path)
    assert isinstance(outcome(job, trained_roles="policy", load_data_checkpoint_iteration=4), Resume)
    job.attempt(PointName(4, 1))
    assert isinstance(outcome(job, trained_roles="value,policy"), Resume), "the order says nothing"


def test_a_start_over_may_have_other_roles(tmp_path: Path) -> None:
    assert isinstance(outcome(committed(tmp_path), trained_roles="policy", start_over="true"), Fresh)


def test_an_attempt_that_committed_nothing_binds_nobody(tmp_path: Path) -> None:
    job = JobOnDisk(tmp_path)
    job.attempt()
    assert isinstance(accepted(outcome(job, resume_role="policy")), Fresh)


def test_beside_a_job_that_runs_another_set_of_roles_is_refused_with_both_commands(tmp_path: Path) -> None:
    job = JobOnDisk(tmp_path, ("policy",))
    job.attempt()
    folder, value = read_folder(job.root), config(job, resume_role="value")

    def lives(attempt: int, role: str) -> bool:
        return role == "policy"

    assert not may_join(folder, value, lives)
    with pytest.raises(ConfigError) as refused:
        check_free(folder, value, lives)
    for role in TRAINED:
        assert f"--resume-role {role} --trained-roles policy,value" in str(refused.value)
    with pytest.raises(HeldError, match="policy is held by"):
        check_free(folder, config(job), lives)  # no flag
    check_free(folder, value, lambda attempt, role: False)
    assert Request() == read_start(job.root, 1).requested
