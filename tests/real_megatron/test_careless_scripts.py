"""Scripts make mistakes: each is named before it costs anything, or does no harm."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from support.job_on_disk import contents
from support.runs import ALONE, Run


@pytest.fixture
def with_own_frozen_models(copy_of_interrupted: Run, undisturbed: Callable[[str], Run]) -> Run:
    """The interrupted run with a copy of the frozen models, to be spoiled."""
    run = copy_of_interrupted
    for role in ("reference", "reward"):
        shutil.copytree(undisturbed(ALONE).output / "checkpoints" / role, run.output / "frozen" / role)
        run.flags = (*run.flags, f"--{role}-load", str(run.output / "frozen" / role))
    return run


def tracker(run: Run, role: str) -> Path:
    return run.output / "frozen" / role / "latest_checkpointed_iteration.txt"


def test_a_save_that_failed_may_be_repeated(new_run: Callable[..., Run], undisturbed: Callable[[str], Run]) -> None:
    run = new_run(ALONE)
    ended = run.tampered("failures.a_save_fails_and_is_repeated")
    assert ended.code == 0, ended.log[-4000:]
    assert "saved already" not in ended.log
    assert run.status()["point"] == {"iteration": 6, "attempt": 1}
    assert run.trace() == undisturbed(ALONE).trace()


def test_a_refused_roll_back_leaves_the_job_as_it_was(copy_of_interrupted: Run, tmp_path: Path) -> None:
    run = copy_of_interrupted
    run.finish()
    before = contents(run.output / "checkpoints"), contents(run.data_checkpoint)
    ended = run.start("--load-data-checkpoint-iteration", "2", "--save", str(tmp_path / "other"))
    assert ended.refused_with == 78
    assert "policy was saved in" in ended.log
    assert (contents(run.output / "checkpoints"), contents(run.data_checkpoint)) == before
    assert run.status()["point"] == {"iteration": 6, "attempt": 2}


def test_the_reference_cannot_be_loaded_from_where_policy_saves(copy_of_interrupted: Run) -> None:
    run = copy_of_interrupted
    ended = run.start("--reference-load", str(run.output / "checkpoints" / "policy"))
    assert ended.refused_with == 78
    assert "from where reference is loaded" in ended.log or "where policy saves" in ended.log


def test_megatrons_bare_exit_on_a_torn_tracker_is_no_success(with_own_frozen_models: Run) -> None:
    run = with_own_frozen_models
    tracker(run, "reference").write_text("rel")
    ended = run.start()
    assert ended.refused_with == 65
    assert "Megatron gave up loading" in ended.log


def test_a_frozen_model_that_vanished_is_not_replaced_by_random_weights(with_own_frozen_models: Run) -> None:
    run = with_own_frozen_models
    tracker(run, "reward").unlink()
    trace = run.trace()
    ended = run.tampered("loads.does_not_look_for_checkpoints")
    assert ended.refused_with == 65
    assert "Megatron would use random weights" in ended.log
    assert run.trace() == trace


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("arguments.names_no_role", "get_args() names no role"),
        ("arguments.asks_too_early", "progress() was called before Megatron parsed its arguments"),
        ("train_steps.own_train_step_forgets_to_load_value", "value trains, but was never loaded"),
    ],
)
def test_a_mistake_is_named_before_it_costs_anything(copy_of_interrupted: Run, mistake: str, message: str) -> None:
    run = copy_of_interrupted
    models = contents(run.output / "checkpoints")
    ended = run.tampered(mistake)
    assert ended.refused_with == 78
    assert message in ended.log
    assert "Traceback" not in ended.log
    value = str(Path("value", "iter_0000002"))
    after = contents(run.output / "checkpoints")
    assert {k: v for k, v in after.items() if value in k} == {k: v for k, v in models.items() if value in k}


def test_mid_episode_is_noticed_also_without_megatrons_train_step(new_run: Callable[..., Run]) -> None:
    run = new_run(ALONE)
    ended = run.tampered("train_steps.own_train_step_saves_before_advance")
    assert ended.code == 0, ended.log[-4000:]
    assert "will not be committed: episode 0 is not done" in ended.log
    assert run.status()["outcome"] == "fresh"


def test_a_save_folder_whose_name_was_taken_away_ends_the_run_before_it_saves_elsewhere(
    new_run: Callable[..., Run],
) -> None:
    run = new_run(ALONE)
    ended = run.tampered("writers.another_start_takes_the_names_and_withdraws")
    assert run.status()["passed_over"] == []
    assert ended.code == 203, ended.log[-4000:]
    assert "policy.save is no link to" in ended.log
    run.finish()
    assert run.status()["point"] == {"iteration": 6, "attempt": 2}


def test_a_role_that_is_never_saved_is_said_to_be_missing(new_run: Callable[..., Run]) -> None:
    run = new_run(ALONE)
    ended = run.tampered("saves.saves_value_never")
    assert (
        "iteration 2 of attempt 1 was not committed when policy of iteration 4 was saved: value, data not" in ended.log
    )
    assert "--trained-roles policy" in ended.log


def test_copies_saved_elsewhere_and_saves_not_to_keep_are_left_alone(
    new_run: Callable[..., Run], undisturbed: Callable[[str], Run]
) -> None:
    run = new_run(ALONE)
    ended = run.killed("train_step@policy:6", tamper="saves.saves_copies_too", committed=4)
    assert "policy of iteration 0 is saved by Megatron alone and will not be committed" in ended.log
    assert run.status()["point"] == {"iteration": 4, "attempt": 1}
    assert (run.output / "checkpoints" / "policy_best" / "iter_0000004").is_dir()
    run.finish("--non-persistent-ckpt-type", "global")
    assert run.trace() == undisturbed(ALONE).trace()


def test_saves_of_roles_that_were_not_loaded_are_committed_while_the_process_ends(new_run: Callable[..., Run]) -> None:
    run = new_run(ALONE)
    ended = run.tampered("loads.loads_nothing_and_commits_at_the_end")
    assert ended.code == 0, ended.log[-4000:]
    assert run.status()["point"] == {"iteration": 6, "attempt": 1}


@pytest.mark.parametrize(("shape", "times"), [("dp2", 1), ("tp2", 0)])
def test_a_loop_that_sums_no_gradients_is_told_once_for_each_role(
    new_run: Callable[..., Run], shape: str, times: int
) -> None:
    ended = new_run(shape).tampered("train_steps.sums_no_gradients", episodes=1)
    for role in ("policy", "value"):
        told = f"{role}: gradients are not summed over its 2 data parallel ranks"
        lines = [line for line in ended.log.splitlines() if told in line]
        assert len(lines) == times, ended.log[-4000:]
        assert all("WARNING" in line for line in lines)


def test_a_loop_that_sums_them_is_told_nothing(undisturbed: Callable[[str], Run]) -> None:
    assert "gradients are not summed" not in undisturbed("dp2").starts[0].log
