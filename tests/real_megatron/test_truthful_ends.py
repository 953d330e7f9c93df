"""A start that cannot resume says so and ends with its code; it never trains, and changes nothing."""

import shutil
from collections.abc import Callable

import pytest

from support.job_on_disk import contents
from support.runs import ALONE, ITERATIONS_PER_EPISODE, Run


def test_with_all_points_damaged_the_start_is_refused_with_65(copy_of_interrupted: Run) -> None:
    run = copy_of_interrupted
    for shard in (run.output / "checkpoints" / "value").glob("iter_*/*.distcp"):
        shard.unlink()
    trace, before = run.trace(), contents(run.data_checkpoint)
    ended = run.start()
    assert ended.refused_with == 65
    assert "start refused: 1 committed points lie in" in ended.log
    assert "iteration 2 of attempt 1 was passed over: value:" in ended.log
    assert "Traceback" not in ended.log
    assert run.trace() == trace
    assert contents(run.data_checkpoint) == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--load-data-checkpoint-iteration", "99"),
            "iteration 99 was asked for and is not there (iterations saved there: 2, 4; attempts: 1)",
        ),
        (("--no-save-optim",), "with --no-save-optim the optimizer and scheduler are not saved"),
        (("--no-save-rng",), "with --no-save-rng the random states are not saved"),
        (("--trained-roles", "policy,reward"), "trained_roles names reward"),
        (("--max-data-ckpt-nums", "0"), "max-data-ckpt-nums"),
    ],
)
def test_what_could_never_be_resumed_is_refused_with_78(
    copy_of_interrupted: Run, flags: tuple[str, ...], message: str
) -> None:
    run = copy_of_interrupted
    trace, before = run.trace(), contents(run.data_checkpoint)
    ended = run.start(*flags)
    assert ended.refused_with == 78
    assert message in ended.log
    assert "Traceback" not in ended.log
    assert run.trace() == trace
    assert contents(run.data_checkpoint) == before


def test_a_later_change_of_a_resumed_argument_is_refused_by_name(copy_of_interrupted: Run) -> None:
    ended = copy_of_interrupted.start(tamper="arguments.changes_finetune_late")
    assert ended.refused_with == 78
    assert "needs args.finetune = False, but it is True now" in ended.log


def test_a_learning_rate_schedule_that_would_be_replayed_is_seen_before_training(copy_of_interrupted: Run) -> None:
    trace = copy_of_interrupted.trace()
    ended = copy_of_interrupted.tampered("restored_state.schedule_replayed")
    assert ended.refused_with == 65
    assert "'scheduler_steps': 32}, but Megatron loaded" in ended.log
    assert copy_of_interrupted.trace() == trace


def test_training_a_role_that_was_never_loaded_is_refused(copy_of_interrupted: Run) -> None:
    trace = copy_of_interrupted.trace()
    ended = copy_of_interrupted.start(tamper="loads.forgets_to_load_value")
    assert ended.refused_with == 78
    assert "value trains, but was never loaded from iteration 2 of attempt 1" in ended.log
    assert copy_of_interrupted.trace() == trace


def test_switched_off_the_start_is_fresh_and_the_old_models_are_kept(copy_of_interrupted: Run) -> None:
    run = copy_of_interrupted
    old = contents(run.output / "checkpoints" / "value" / "iter_0000002")
    first = run.trace()[0]
    ended = run.finish("--no-enable-resume-training", episodes=1)
    assert "attempt 2 starts fresh: resuming is switched off; 1 committed points stay" in ended.log
    again = run.trace()[0]
    assert {**again, "lr": None} == {**first, "lr": None}, "it trains the first episode again"
    assert contents(run.output / "checkpoints" / "value" / "abandoned" / "a0002" / "iter_0000002") == old
    assert run.status()["point"] == {"iteration": 2, "attempt": 2}


def test_a_save_that_was_never_committed_is_not_loaded_by_a_fresh_start(
    new_run: Callable[..., Run], undisturbed: Callable[[str], Run]
) -> None:
    run = new_run(ALONE)
    run.killed("save.begin@value")  # policy alone is saved, nothing is committed
    ended = run.finish()
    assert "attempt 2 starts fresh: nothing was committed yet" in ended.log
    assert "iteration 2 of attempt 1 was passed over: it was never committed" in ended.log
    assert run.trace() == undisturbed(ALONE).trace()


def test_rolling_back_goes_on_from_there_once(copy_of_interrupted: Run, undisturbed: Callable[[str], Run]) -> None:
    run = copy_of_interrupted
    run.finish()
    ended = run.finish("--load-data-checkpoint-iteration", "2")
    assert "resumes from iteration 2 of attempt 1" in ended.line("resumes from")
    assert "policy: moved iterations 4, 6, left by an earlier attempt" in ended.log
    assert run.trace() == undisturbed(ALONE).trace()
    assert run.status()["point"] == {"iteration": 6, "attempt": 3}


def test_a_save_in_mid_episode_does_not_pretend(new_run: Callable[..., Run]) -> None:
    run = new_run(ALONE)
    ended = run.finish(tamper="loop_order.save_before_advance")
    assert "will not be committed: episode 0 is not done and its experience is not tracked" in ended.log
    assert run.status()["outcome"] == "fresh"


def test_a_loop_that_saves_in_mid_episode_only_ends_before_all_its_work_hangs_on_no_failure(
    new_run: Callable[..., Run],
) -> None:
    ended = new_run(ALONE, "--max-uncommitted-saves", "2").tampered("loop_order.save_before_advance")
    assert 78 in ended.codes, ended.log[-4000:]  # rank 0's; the other loses its peer
    told = ended.line("saves came to no resume point")
    assert "(2 in a row; the limit is 2), iteration 4 of attempt 1 because: episode 1 is not done" in told


def test_a_save_in_mid_episode_with_its_experience_tracked_is_committed(new_run: Callable[..., Run]) -> None:
    run = new_run(ALONE)
    tamper = "loop_order.save_before_advance_with_experience"
    run.killed("save.begin@policy:2", tamper=tamper, committed=ITERATIONS_PER_EPISODE)
    assert run.status()["roles"]["policy"]["episode"] == 0
    ended = run.start(tamper=tamper)
    assert "experience restored: [0.0, 1.0, 2.0, 3.0, 4.0, 5.0] [0, 1, 2]" in ended.log
    assert "mid_episode=True" in ended.log


def test_training_without_ever_saving_is_warned_of_once(new_run: Callable[..., Run]) -> None:
    run = new_run(ALONE)
    ended = run.finish(tamper="saves.never_saves")
    assert "not one call of Megatron's save_checkpoint" in ended.line("nothing can be resumed")


def test_the_warning_of_a_resumed_job_names_the_point_that_it_still_has(copy_of_interrupted: Run) -> None:
    run = copy_of_interrupted
    ended = run.finish(tamper="saves.never_saves")
    assert "save_checkpoint: a failure now goes back to iteration 2 of attempt 1 in" in ended.line("not one call of")


def test_without_a_data_checkpoint_path_nothing_is_written_or_changed(
    new_run: Callable[..., Run], undisturbed: Callable[[str], Run]
) -> None:
    run = new_run(ALONE)
    run.without = ("--data-checkpoint-path",)
    ended = run.finish()
    ended.line("nothing of this run can be resumed: --data-checkpoint-path was not given")
    assert len([line for line in ended.log.splitlines() if "megatron_resume" in line]) == 1
    assert not run.data_checkpoint.exists()
    assert run.trace() == undisturbed(ALONE).trace()
    shutil.rmtree(run.output)
