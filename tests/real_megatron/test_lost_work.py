"""Lines of test_how_jobs_lose_work.py that only a real run can show."""

import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from megatron_resume.checkpoint.layout import COMMITTED, TRACKER, PointName
from support.job_on_disk import contents
from support.runs import ALONE, ITERATIONS_PER_EPISODE, Run, assert_identical

FIRST = PointName(ITERATIONS_PER_EPISODE, 1)


class RunsCode:
    """Unpickled, it makes a file."""

    def __init__(self, proof: Path):
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.proof),)


FOREIGN = (
    "data_checkpoint/replica0_step4/meta.pkl",
    "data_checkpoint/replica0_step4/latest_checkpointed_iteration.txt",
    "data_checkpoint/iter_0000040/shard",
    "checkpoints/policy/iter_0000040/shard",  # beyond the point, but not of this job
    "checkpoints/value/best/shard",
)


@pytest.fixture(scope="module")
def beset(interrupted: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A killed run among everything that leads others astray, started again to its end."""
    run = replace(interrupted, output=tmp_path_factory.mktemp("beset") / "run", starts=[])
    shutil.copytree(interrupted.output, run.output)
    (run.output / "checkpoints" / "policy" / TRACKER).write_text("")
    (run.output / "checkpoints" / "value" / TRACKER).write_text("96")
    for path in FOREIGN:
        (run.output / path).parent.mkdir(parents=True, exist_ok=True)
        (run.output / path).write_bytes(pickle.dumps(RunsCode(run.output / "code ran")))
    run.finish()
    return run


def test_a_truncated_tracker_and_one_that_names_a_folder_that_is_gone_cost_nothing(
    beset: Run, undisturbed: Callable[[str], Run]
) -> None:
    assert f"resumes from {FIRST}" in beset.starts[0].line("resumes from")
    assert_identical(beset, undisturbed(ALONE))


def test_folders_of_others_are_never_touched(beset: Run) -> None:
    expected = pickle.dumps(RunsCode(beset.output / "code ran"))
    assert [(beset.output / path).read_bytes() for path in FOREIGN] == [expected] * len(FOREIGN)


def test_a_pickle_of_somebody_else_runs_no_code(beset: Run) -> None:
    assert not (beset.output / "code ran").exists()
    pickle.loads((beset.output / FOREIGN[0]).read_bytes())
    assert (beset.output / "code ran").exists(), "it would have"


@pytest.fixture(scope="module")
def saved_again(interrupted: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose script saves everything twice, and which Megatron was to tidy up."""
    run = Run(
        interrupted.server, tmp_path_factory.mktemp("saved_again") / "run", interrupted.flags, interrupted.num_ranks
    )
    twice = ("--save-retain-interval", "100")
    run.killed("save.begin@policy:3", *twice, tamper="saves.saves_twice", committed=2 * ITERATIONS_PER_EPISODE)
    return run


def test_a_save_of_the_same_iteration_again_does_not_touch_the_one_that_is_there(saved_again: Run) -> None:
    assert "policy of iteration 2 is saved already and not saved again" in saved_again.starts[0].log
    assert saved_again.status()["point"] == {"iteration": 4, "attempt": 1}


def test_megatron_deletes_no_model_of_a_point(saved_again: Run) -> None:
    assert "--save-retain-interval is switched off" in saved_again.starts[0].log
    kept = {point["iteration"]: point["state"] for point in saved_again.status()["points"]}
    assert kept == {2: "committed", 4: "resumable", 6: "passed over"}
    models = {path.name for path in saved_again.output.glob("checkpoints/value/iter_*")}
    assert models == {"iter_0000002", "iter_0000004"}


def test_killed_after_both_models_before_the_data_no_episode_is_trained_twice(
    new_run: Callable[..., Run], undisturbed: Callable[[str], Run]
) -> None:
    run = new_run(ALONE)
    run.killed("write.begin@data.json:2")
    torn = run.data_checkpoint / PointName(2 * ITERATIONS_PER_EPISODE, 1).folder
    assert {"policy.json"} <= set(os.listdir(torn)) <= {"policy.json", "value.json", "data.safetensors"}
    ended = run.finish()
    assert f"resumes from {FIRST}" in ended.line("resumes from")
    assert_identical(run, undisturbed(ALONE))


def test_trained_on_after_a_roll_back_the_abandoned_line_is_never_taken(
    copy_of_interrupted: Run, undisturbed: Callable[[str], Run]
) -> None:
    run = copy_of_interrupted
    run.finish()  # attempt 2, to the last iteration
    run.killed("commit.end", "--load-data-checkpoint-iteration", str(FIRST.iteration))
    ended = run.finish()
    assert f"resumes from {PointName(2 * ITERATIONS_PER_EPISODE, 3)}" in ended.line("resumes from")
    assert_identical(run, undisturbed(ALONE))


def test_a_loop_that_starts_at_0_is_stopped_at_its_first_save(copy_of_interrupted: Run) -> None:
    run = copy_of_interrupted
    models = contents(run.output / "checkpoints" / "policy" / "iter_0000002")
    ended = run.tampered("loop_order.loop_starts_at_0")
    assert ended.refused_with == 78
    assert "policy is to be saved at iteration 2, but this run continued from 2" in ended.log
    assert contents(run.output / "checkpoints" / "policy" / "iter_0000002") == models
    assert run.status()["point"] == FIRST._asdict()


def test_state_is_global_a_run_of_one_rank_goes_on_where_two_ranks_stopped(
    new_run: Callable[..., Run], undisturbed: Callable[[str], Run]
) -> None:
    run = new_run()
    run.killed("save.begin@value:2", tamper="data_order.tracks_its_rows", committed=FIRST.iteration)
    names = set(os.listdir(run.data_checkpoint / FIRST.folder))
    assert names == {"policy.json", "value.json", "data.json", "data.safetensors", COMMITTED}, "none is of one rank"
    run.num_ranks = 1
    ended = run.tampered("data_order.tracks_its_rows")
    assert ended.code == 0, ended.log[-4000:]
    assert "begins at row 16 " in ended.line("begins at row")
    assert "episode=1, iteration=2, consumed_samples=16" in ended.line("begins at row")
    prompts = [line["prompt_ids"] for line in run.trace()]
    reference = [line["prompt_ids"] for line in undisturbed("dp2").trace()]
    assert [sorted(ids) for ids in prompts] == [sorted(ids) for ids in reference]


def test_every_point_deleted_the_start_is_refused(copy_of_interrupted: Run) -> None:
    run = copy_of_interrupted
    run.killed("start.end")  # attempt 2 has begun from the first point
    for point in run.data_checkpoint.glob("iter_*"):
        shutil.rmtree(point)
    before = contents(run.output / "checkpoints"), contents(run.data_checkpoint)
    ended = run.start()
    assert ended.refused_with == 65
    assert f"attempt 2 continued from {FIRST}, but" in ended.log
    assert (contents(run.output / "checkpoints"), contents(run.data_checkpoint)) == before
