"""Whether another life is worth it: the rule alone, on lists of lives."""

from typing import Any

import msgspec
import pytest

from megatron_resume.checkpoint.events import Failed, Stopped
from megatron_resume.checkpoint.lives import Life
from megatron_resume.errors import ConfigError, CrashLoopError
from megatron_resume.policy import Duration, Policy, RefillAfter
from megatron_resume.resume.budget import Budget, budget, told
from support.job_on_disk import FAILURE

LAUNCH = "the launch that asks"


def life(attempt: int, iteration: int | None = None, *, commits: int = 0, job: str = LAUNCH, **cause: Any) -> Life:
    """One that failed at `iteration`, by default each at another."""
    at = attempt if iteration is None else iteration
    return Life(
        attempt=attempt,
        state="failed",
        job=job,
        cause=msgspec.structs.replace(FAILURE, attempt=attempt, iteration=at, **cause),
        commits=commits,
        iteration=at,
    )


def stopped(attempt: int, exit_code: int) -> Life:
    ending = Stopped(reason="SIGTERM", exit_code=exit_code)
    return Life(attempt=attempt, state="stopped", job=LAUNCH, ending=ending, iteration=attempt)


def judged(*lives: Life, **policy: Any) -> Budget:
    """What these leave; given oldest first."""
    return budget(Policy(**policy), reversed(lives), LAUNCH)


def test_a_first_start_has_used_nothing() -> None:
    assert judged() == Budget(used=0, story=())


@pytest.mark.parametrize(("failed", "is_over"), [(3, False), (4, True)])
def test_failures_without_a_commit_use_the_restarts_up(failed: int, is_over: bool) -> None:
    found = judged(*(life(attempt) for attempt in range(1, failed + 1)), max_restarts=3)
    assert (found.used, found.over is not None) == (failed, is_over)


def test_given_up_it_ends_with_70_tells_the_last_lives_and_what_to_type() -> None:
    over = judged(*(life(attempt) for attempt in range(1, 5)), max_restarts=3).over
    assert isinstance(over, CrashLoopError)
    assert over.exit_code == 70
    assert "given up: 4 lives ended without a refill between them, the last at iteration 4 (max_restarts is 3)" in str(
        over
    )
    assert "launch --new-budget" in str(over)
    newest_first = [line for line in str(over).splitlines() if "attempt" in line]
    assert newest_first[0] == (
        "  attempt 4 at iteration 4: rank 1 on node7 failed in train with RuntimeError: the network is down"
    )
    assert len(newest_first) == 4


def test_without_restarts_in_the_policy_somebody_else_counts_them() -> None:
    assert judged(*(life(attempt) for attempt in range(1, 20)), max_restarts=0).over is None


def test_a_life_that_committed_gives_the_restarts_back() -> None:
    found = judged(life(1), life(2), life(3), life(4, commits=1), life(5), max_restarts=3)
    assert (found.used, found.over) == (2, None)


def test_ten_spread_out_failures_with_progress_between_them_survive_three_restarts() -> None:
    assert judged(*(life(attempt, commits=1) for attempt in range(1, 11)), max_restarts=3).over is None


def test_more_commits_may_be_asked_for_than_one() -> None:
    lives = [life(attempt, commits=1) for attempt in range(1, 5)]
    assert judged(*lives, max_restarts=3, refill_after=RefillAfter(commits=2)).over is not None
    assert judged(*lives, max_restarts=3, refill_after=RefillAfter(commits=1)).over is None


def test_an_hour_of_health_gives_them_back_where_the_policy_says_so() -> None:
    lives = [life(attempt, trained_s=3_600.0) for attempt in range(1, 5)]
    assert judged(*lives, max_restarts=3).over is not None
    assert judged(*lives, max_restarts=3, refill_after=RefillAfter(health=Duration(3_600))).over is None


def test_failing_again_and_again_at_one_iteration_ends_it_although_restarts_are_left() -> None:
    lives = [life(attempt, 7, commits=attempt == 1) for attempt in range(1, 5)]
    over = judged(*lives, max_restarts=100).over
    assert isinstance(over, CrashLoopError)
    assert "given up: 4 lives in a row ended at iteration 7 (no_progress_limit is 4)" in str(over)
    assert judged(*lives[1:], max_restarts=100).over is None


def test_a_failure_elsewhere_ends_the_row_at_one_iteration() -> None:
    lives = [life(1, 7), life(2, 7), life(3, 9), life(4, 7), life(5, 7)]
    assert judged(*lives, max_restarts=100, no_progress_limit=3).over is None


def test_lives_of_which_no_iteration_is_known_are_at_no_one_place_and_use_restarts_up() -> None:
    unknown = [Life(attempt=number, state="killed") for number in (1, 2, 3)]
    assert judged(*unknown, no_progress_limit=2).over is None
    over = judged(*unknown, no_progress_limit=2, max_restarts=2).over
    assert "3 lives ended without a refill between them (max_restarts is 2)" in str(over)


def test_a_stop_with_everything_saved_is_free_and_one_without_is_not() -> None:
    assert judged(*(stopped(attempt, 202) for attempt in range(1, 9)), max_restarts=3) == Budget(used=0, story=())
    found = judged(*(stopped(attempt, 143) for attempt in range(1, 5)), max_restarts=3)
    assert found.over is not None
    assert found.story[0] == "attempt 4 ended at iteration 4: SIGTERM"


def test_a_stop_does_not_end_a_row_of_failures() -> None:
    lives = [life(1, 7), life(2, 7), stopped(3, 202), life(4, 7)]
    assert judged(*lives, max_restarts=100, no_progress_limit=3).over is not None


@pytest.mark.parametrize("state", ["finished", "new budget"])
def test_nothing_before_a_job_that_finished_or_a_new_budget_counts(state: str) -> None:
    before = [life(attempt) for attempt in range(1, 5)]
    found = judged(*before, Life(attempt=0, state=state), life(6), max_restarts=3)
    assert (found.used, found.over) == (1, None)


def test_lives_of_other_launches_count_as_a_requeue_changes_the_launch() -> None:
    lives = [life(attempt, job=f"launch {attempt}") for attempt in range(1, 5)]
    assert isinstance(judged(*lives, max_restarts=3).over, CrashLoopError)


@pytest.mark.parametrize("code", [65, 70, 78])
def test_a_fatal_code_ends_the_launch_at_once_with_it(code: int) -> None:
    over = judged(life(1, exit_code=code, error="")).over
    assert over is not None
    assert over.exit_code == code


def test_an_error_that_no_restart_mends_ends_the_launch_with_78() -> None:
    over = judged(life(1, fatal=True, error="FileNotFoundError", message="no vocab.json")).over
    assert isinstance(over, ConfigError)
    assert "failed in train with FileNotFoundError: no vocab.json" in str(over)


def test_a_new_launch_tries_again_what_was_fatal_for_the_one_before() -> None:
    assert judged(life(1, exit_code=78, job="the launch before")).over is None


def test_the_policy_names_what_else_is_fatal_and_what_is_not() -> None:
    assert judged(life(1, error="CudaError"), fatal=("CudaError",)).over is not None
    assert judged(life(1, exit_code=78, error=""), retry=(78,)).over is None
    assert judged(life(1, fatal=True, error="FileNotFoundError"), retry=("FileNotFoundError",)).over is None


def test_no_more_lives_are_read_than_needed() -> None:
    read = []

    def lives() -> Any:
        for attempt in range(1_000, 0, -1):
            read.append(attempt)
            yield life(attempt, commits=1)

    budget(Policy(), lives(), LAUNCH)
    assert len(read) == 2


def test_what_is_told_of_a_life_is_shown_and_not_obeyed() -> None:
    ended = life(3, 9, host="node\x1b[2J", error="OSError", message="first\nsecond\u202e")
    assert told(ended) == (
        "attempt 3 at iteration 9: rank 1 on node\\x1b[2J failed in train with OSError: first\\nsecond\\u202e"
    )


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (
            Life(attempt=3, state="killed", iteration=9),
            "attempt 3 ended at iteration 9 without a record: killed, out of memory, or lost node",
        ),
        (
            life(3, 9, how="hang", error="hang", silent_s=61.2),
            "attempt 3 at iteration 9: rank 1 on node7 made no progress in train for 61 s",
        ),
        (
            life(
                3, 9, how="killed", error="", exit_code=None, signal="SIGKILL", kernel="Out of memory: Killed process 7"
            ),
            "attempt 3 at iteration 9: rank 1 on node7 ended in train by SIGKILL; Out of memory: Killed process 7",
        ),
        (
            life(3, 9, error="", exit_code=17),
            "attempt 3 at iteration 9: rank 1 on node7 ended in train with exit code 17",
        ),
        (
            Life(attempt=0, state="failed", cause=msgspec.structs.replace(FAILURE, phase="setup"), iteration=0),
            "a start before its first load at iteration 0: rank 1 on node7 failed in setup with RuntimeError: the "
            "network is down",
        ),
        (
            Life(attempt=3, state="failed", ending=Failed(error="KeyError", message="", exit_code=1), iteration=9),
            "attempt 3 ended at iteration 9: KeyError",
        ),
    ],
)
def test_the_end_of_a_life_is_told_in_a_line(ended: Life, said: str) -> None:
    assert told(ended) == said
