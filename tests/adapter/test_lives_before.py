"""What rank 0 does about the lives before, before Megatron is imported: on folders, also across launches."""

import logging
from collections.abc import Iterator

import pytest

from megatron_resume.adapter import lives_before
from megatron_resume.adapter.lives_before import check_budget
from megatron_resume.checkpoint.events import Failed, Stopped
from megatron_resume.errors import CrashLoopError
from support.job_on_disk import JobOnDisk

POLICY = '{"max_restarts": 1}'


@pytest.fixture(autouse=True)
def a_process_that_has_not_checked() -> Iterator[None]:
    lives_before._has_checked = False
    yield
    lives_before._has_checked = False


def check(job: JobOnDisk, **environ: str) -> None:
    """As a new process of rank 0 does."""
    lives_before._has_checked = False
    variables = {"RANK": "0", "MEGATRON_RESUME_POLICY": POLICY, **environ}
    check_budget(["--data-checkpoint-path", str(job.root), "--lr", "1"], variables)


def fail(job: JobOnDisk, times: int, *, launch: str = "job") -> None:
    for _ in range(times):
        job.tell(job.attempt(job=launch), Failed(error="RuntimeError", message="the disk is gone", exit_code=1))


def test_restarts_left_the_start_says_which_it_is_and_why(job: JobOnDisk, caplog: pytest.LogCaptureFixture) -> None:
    fail(job, 1)
    with caplog.at_level(logging.WARNING):
        check(job)
    assert "restart 1: attempt 1 ended: RuntimeError" in caplog.text


def test_used_up_also_over_launches_of_a_requeue_the_start_ends_with_70(job: JobOnDisk) -> None:
    fail(job, 1, launch="the first launch")
    fail(job, 1, launch="the second")
    with pytest.raises(CrashLoopError, match="2 lives ended without a refill between them"):
        check(job, MEGATRON_RESUME_LAUNCH_ID="the third")


def test_preemptions_cost_nothing_however_many_there_are(job: JobOnDisk) -> None:
    for _ in range(9):
        job.tell(job.attempt(), Stopped(reason="SIGTERM", exit_code=202))
    check(job)


def test_a_new_budget_counts_from_there_once_for_a_launch(job: JobOnDisk) -> None:
    fail(job, 2)
    check(job, MEGATRON_RESUME_NEW_BUDGET="token/../1")
    fail(job, 2)
    with pytest.raises(CrashLoopError):
        check(job, MEGATRON_RESUME_NEW_BUDGET="token/../1")  # its engine started it again
    check(job, MEGATRON_RESUME_NEW_BUDGET="token 2")
    check(job)


def test_other_ranks_and_starts_without_a_policy_leave_it_to_others(job: JobOnDisk) -> None:
    fail(job, 9)
    check(job, RANK="1")
    lives_before._has_checked = False
    check_budget(["--data-checkpoint-path", str(job.root)], {"RANK": "0"})
