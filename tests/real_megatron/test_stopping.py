"""SIGTERM, to all ranks or to one: what was trained is committed, 202, and the next start goes on exactly."""

from collections.abc import Callable

import pytest

from megatron_resume.checkpoint.lives import lives
from megatron_resume.resume.budget import is_free
from support.runs import ASYNC, RARE, SYNC, Ended, Run, assert_identical
from support.waiting import until

STOPPED, SIGTERM = 202, -15


def told(run: Run, at: str, ranks: str, **env: str) -> Ended:
    """Start a run in which SIGTERM comes to some ranks."""
    ended = run.start(tamper="sigterm.is_told_to_end", env={"TOLD_AT": at, "TOLD": ranks, **env})
    assert not ended.timed_out, ended.log[-6000:]
    return ended


def costs_no_restart(run: Run) -> None:
    """As the next start will see it; the watchdog of a rank that left writes a moment after that."""
    until(lambda: is_free(next(lives(run.data_checkpoint))), lambda: str(next(lives(run.data_checkpoint))))


def goes_on_exactly(run: Run, undisturbed: Run) -> None:
    run.finish()
    assert_identical(run, undisturbed)


@pytest.mark.parametrize(
    ("ranks", "save"),
    [
        pytest.param("0,1", SYNC, id="0,1-sync"),
        pytest.param("1", ASYNC, id="1-async"),
        pytest.param("0,1", ASYNC, id="0,1-async", marks=pytest.mark.slow),
        pytest.param("1", SYNC, id="1-sync", marks=pytest.mark.slow),
    ],
)
def test_told_in_training_it_saves_at_the_end_of_the_episode_and_ends_with_202(
    new_run: Callable[..., Run], undisturbed: Callable[[str], Run], ranks: str, save: tuple[str, ...]
) -> None:
    run = new_run("dp2", *RARE, *save)
    ended = told(run, "train", ranks)
    assert ended.code == STOPPED, ended.log[-6000:]
    assert run.status()["point"] == {"iteration": 2, "attempt": 1}
    assert run.status()["attempts"][0]["processes"][0]["says"] == "stopped with exit code 202: SIGTERM"
    costs_no_restart(run)
    goes_on_exactly(run, undisturbed("dp2"))


@pytest.mark.parametrize("ranks", [pytest.param("0,1", marks=pytest.mark.slow), "1"])
def test_told_in_a_rollout_with_nothing_to_save_it_ends_with_202_and_does_not_wait_for_the_rollout(
    new_run: Callable[..., Run], undisturbed: Callable[[str], Run], ranks: str
) -> None:
    run = new_run()
    ended = told(run, "rollout", ranks, ROLLOUT_S="3600")
    assert ended.code == STOPPED, ended.log[-6000:]
    assert "ends with 202; all that was trained is committed" in ended.log
    costs_no_restart(run)
    goes_on_exactly(run, undisturbed("dp2"))


def test_told_in_a_rollout_with_something_to_save_it_saves_at_the_end_of_the_episode(
    new_run: Callable[..., Run], undisturbed: Callable[[str], Run]
) -> None:
    run = new_run("dp2", *RARE)
    ended = told(run, "rollout", "0,1")
    assert ended.code == STOPPED, ended.log[-6000:]
    assert run.status()["point"] == {"iteration": 4, "attempt": 1}
    goes_on_exactly(run, undisturbed("dp2"))


def test_a_loop_that_never_asks_ends_after_its_own_next_save(
    new_run: Callable[..., Run], undisturbed: Callable[[str], Run]
) -> None:
    run = new_run()
    ended = told(run, "train", "1", NEVER_ASKS="1", MEGATRON_RESUME_POLICY="{}")
    assert ended.code == STOPPED, ended.log[-6000:]
    assert run.status()["point"] == {"iteration": 2, "attempt": 1}
    goes_on_exactly(run, undisturbed("dp2"))


def test_what_cannot_be_saved_in_the_grace_period_ends_by_the_signal_and_the_next_start_says_so(
    new_run: Callable[..., Run], undisturbed: Callable[[str], Run]
) -> None:
    run = new_run("dp2", *RARE)
    grace = {"MEGATRON_RESUME_POLICY": '{"grace_period": "3s"}'}
    ended = told(run, "rollout", "0,1", ROLLOUT_S="3600", **grace)
    assert ended.code == SIGTERM, ended.log[-6000:]
    assert "rank 0 was asked to stop and came to no save in time" in ended.log
    assert run.status()["attempts"][0]["processes"][0]["says"] == "stopped with exit code 143: SIGTERM"
    assert not is_free(next(lives(run.data_checkpoint)))
    goes_on_exactly(run, undisturbed("dp2"))


def test_a_rank_whose_launcher_ends_it_because_another_failed_ends_at_once_as_ever(
    new_run: Callable[..., Run],
) -> None:
    run = new_run("dp2", *RARE)
    ended = run.tampered("failures.sleeps_while_another_fails")
    assert ended.code == 7, ended.log[-6000:]
    assert sorted(ended.codes) == [SIGTERM, 7]
    assert "rank 1 failed; this rank is ended with it, and committed points stay" in ended.log
    assert "s to save" not in ended.log, "nothing could be"
    assert not is_free(next(lives(run.data_checkpoint)))
