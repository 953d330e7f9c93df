"""Killed and resumed, a run is the undisturbed run to the bit: trace, weights, optimizer states."""

import re
from collections.abc import Callable

import pytest

from megatron_resume.checkpoint.layout import PointName
from support.job_on_disk import contents
from support.runs import (
    ALONE,
    ASYNC,
    EPISODES,
    ITERATIONS_PER_EPISODE,
    SYNC,
    Run,
    assert_identical,
    killed_in_its_second_save,
)


@pytest.mark.parametrize(
    ("shape", "save"),
    [
        pytest.param("dp2", SYNC, id="dp2-sync", marks=pytest.mark.slow),  # its parts are in test_every_death.py
        pytest.param("dp2", ASYNC, id="dp2-async"),
        pytest.param("tp2", SYNC, id="tp2-sync"),
        pytest.param("tp2", ASYNC, id="tp2-async", marks=pytest.mark.slow),
    ],
)
def test_killed_twice_and_resumed_a_run_is_identical_to_the_undisturbed_one(
    new_run: Callable[..., Run], undisturbed: Callable[[str], Run], shape: str, save: tuple[str, ...]
) -> None:
    run = killed_in_its_second_save(lambda name: new_run(shape, *save, name=name))
    reference = undisturbed(shape)
    frozen_before = contents(reference.output / "checkpoints" / "reference")

    resumed = run.killed("train_step@policy:2")  # in the middle of an episode
    per_save = ITERATIONS_PER_EPISODE
    assert f"attempt 2 resumes from {PointName(per_save, 1)}" in resumed.line("resumes from")
    passed_over = resumed.line(f"{PointName(2 * per_save, 1)} was passed over")
    assert re.search("it was never committed: (policy, )?value, the data not recorded", passed_over)

    finished = run.finish()
    assert f"attempt 3 resumes from {PointName(per_save, 1)}" in finished.line("resumes from")
    assert_identical(run, reference)
    for state in run.final_state().values():  # also against what lies in their own folders
        for role in ("reference", "reward"):
            assert state[role]["weights"] == state[role]["checkpoint"]
    assert contents(reference.output / "checkpoints" / "reference") == frozen_before


def test_the_same_command_resumes_a_copied_run_identically(
    copy_of_interrupted: Run, undisturbed: Callable[[str], Run]
) -> None:
    copy_of_interrupted.finish(tamper="restored_state.nothing")
    assert_identical(copy_of_interrupted, undisturbed(ALONE))


@pytest.mark.parametrize("left_out", ["optimizer", "scheduler", "random_numbers", "kl_coefficient", "data_position"])
def test_leaving_out_any_one_restored_thing_would_be_seen(
    copy_of_interrupted: Run, undisturbed: Callable[[str], Run], left_out: str
) -> None:
    run = copy_of_interrupted
    before_the_kill = run.trace()[:ITERATIONS_PER_EPISODE]
    run.finish(tamper=f"restored_state.{left_out}")
    trace, reference = run.trace(), undisturbed(ALONE).trace()
    assert trace[:ITERATIONS_PER_EPISODE] == before_the_kill == reference[:ITERATIONS_PER_EPISODE]
    assert trace[ITERATIONS_PER_EPISODE:] != reference[ITERATIONS_PER_EPISODE:]


@pytest.mark.parametrize("save", [SYNC, ASYNC], ids=["sync", "async"])
def test_leaving_the_process_waits_for_the_pending_commit(new_run: Callable[..., Run], save: tuple[str, ...]) -> None:
    run = new_run(ALONE, *save)
    run.finish(episodes=1)
    status = run.status()
    assert status["outcome"] == "resume"
    assert status["point"] == {"iteration": ITERATIONS_PER_EPISODE, "attempt": 1}
    assert status["roles"]["policy"]["episode"] == 1
    assert status["roles"]["value"]["consumed_samples"] == 16


def test_a_finished_run_can_be_prolonged(new_run: Callable[..., Run]) -> None:
    run = new_run(ALONE)
    run.finish(episodes=1)
    # The learning rate schedule is that of the longer run, so only the prompts can be foretold.
    run.finish("--override-opt_param-scheduler", episodes=2)
    trained = [line["prompt_ids"] for line in run.trace()]
    assert sorted(trained[2] + trained[0]) == list(range(32))


def test_curves_drop_what_the_killed_attempt_logged_beyond_the_point(copy_of_interrupted: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    copy_of_interrupted.finish()
    events = EventAccumulator(str(copy_of_interrupted.output / "tensorboard"))
    events.Reload()
    (tag,) = [tag for tag in events.Tags()["scalars"] if tag.endswith("reward")]
    assert [event.step for event in events.Scalars(tag)] == list(range(1, EPISODES * ITERATIONS_PER_EPISODE + 1))


def test_curves_tell_how_the_job_fares(new_run: Callable[..., Run]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = new_run(ALONE, "--resume-lease-time", "1")  # so that leases are renewed while it lives
    run.killed("save.begin@policy:2", tamper="saves.rests_before_its_second_save", committed=ITERATIONS_PER_EPISODE)
    run.finish()
    events = EventAccumulator(str(run.output / "tensorboard"))
    events.Reload()
    curves = {name: events.Scalars(f"resume/{name}") for name in ("attempt", "lost_iterations", "commit_lag_s")}
    assert [(point.step, point.value) for point in curves["attempt"]] == [(2, 1), (4, 2), (6, 2)]
    assert [(point.step, point.value) for point in curves["lost_iterations"]] == [(2, 0), (4, 2), (6, 2)]
    assert [point.step for point in curves["commit_lag_s"]] == [6], "the first save of an attempt knows of no commit"
    assert 0 < curves["commit_lag_s"][0].value < 60
