"""--use-checkpoint-args reads a checkpoint before its folder is put in order: no kill may end each start after it."""

from pathlib import Path

import pytest

from support.job_on_disk import contents
from support.pretraining import OnPlainMegatron, Pretraining, undisturbed_pretraining
from support.runs import Server


@pytest.fixture
def job(server: Server, tmp_path: Path) -> Pretraining:
    return reads_its_own(Pretraining(server, tmp_path / "run"))


def reads_its_own(run: Pretraining) -> Pretraining:
    run.argv += ["--use-checkpoint-args", "--load", str(saves(run))]
    return run


def saves(run: Pretraining) -> Path:
    return run.output / "checkpoints"


def tear(run: Pretraining) -> None:
    """Leave what a kill leaves in the moment in which Megatron writes it."""
    tracker = saves(run) / "latest_checkpointed_iteration.txt"
    assert tracker.read_text().isdigit()
    tracker.write_text("")


@pytest.mark.parametrize("format_", ["torch_dist", "torch"])
def test_a_torn_tracker_ends_no_start_and_what_is_read_is_no_difference(
    server: Server, shared_folder: Path, job: Pretraining, format_: str
) -> None:
    job.argv += ["--ckpt-format", format_]
    job.killed("commit.end")
    tear(job)
    log = job.finish()
    assert "attempt 2 resumes from iteration 3 of attempt 1" in log
    assert "saved with another configuration" not in log
    assert job.effective() == undisturbed_pretraining(server, shared_folder).effective()


@pytest.mark.parametrize("names_role", [True, False])
def test_a_tracker_that_the_first_save_left_torn_is_no_checkpoint(
    server: Server, shared_folder: Path, job: Pretraining, names_role: bool
) -> None:
    if not names_role:
        at = job.argv.index("--trained-roles")
        del job.argv[at : at + 2]
    job.killed("model.synced")
    tear(job)
    log = job.finish()
    assert "attempt 2 starts fresh" in log
    assert job.effective() == undisturbed_pretraining(server, shared_folder).effective()


def test_a_torn_tracker_ends_no_start_over(server: Server, shared_folder: Path, job: Pretraining) -> None:
    job.killed("commit.end")
    tear(job)
    job.argv.append("--start-over")
    assert "attempt 2 starts fresh: starting over was asked for" in job.finish()
    assert job.effective() == undisturbed_pretraining(server, shared_folder).effective()


def test_a_torn_tracker_of_a_non_persistent_checkpoint_ends_no_start(
    server: Server, shared_folder: Path, job: Pretraining
) -> None:
    job.argv += ["--non-persistent-save-interval", "1", "--non-persistent-ckpt-type", "global"]
    job.killed("train_step@policy:6", committed=3)
    (saves(job) / "non_persistent/latest_checkpointed_iteration.txt").write_text("")
    assert "attempt 2 resumes from iteration 3 of attempt 1" in job.finish()
    assert job.effective() == undisturbed_pretraining(server, shared_folder).effective()


def test_a_model_that_was_moved_aside_is_read_where_it_lies(job: Pretraining) -> None:
    job.killed("commit.end:2")
    command = list(job.argv)
    job.argv += ["--load-data-checkpoint-iteration", "3"]
    job.killed("train_step@policy:2")
    assert (saves(job) / "abandoned/a0002/iter_0000006").is_dir()
    job.argv = [*command, "--load-data-checkpoint-iteration", "6", "--load-data-checkpoint-attempt", "1"]
    log = job.finish()
    assert "attempt 3 resumes from iteration 6 of attempt 1" in log


def test_a_later_attempts_model_of_the_same_iteration_is_not_read_instead(
    server: Server, shared_folder: Path, tmp_path: Path
) -> None:
    job = Pretraining(server, tmp_path / "run")
    job.killed("commit.end:2")
    command = list(job.argv)
    job.argv += ["--load-data-checkpoint-iteration", "3", "--hidden-dropout", "0.5"]
    job.killed("commit.end")
    assert (saves(job) / "iter_0000006").is_dir()
    job.argv = [*command, "--load-data-checkpoint-iteration", "6", "--load-data-checkpoint-attempt", "1"]
    log = reads_its_own(job).finish()
    assert "attempt 3 resumes from iteration 6 of attempt 1" in log
    assert "WARNING:megatron_resume:policy continues from" not in log, "with a dropout of 0.5"
    whole = undisturbed_pretraining(server, shared_folder).effective()
    assert {at: job.effective()[at] for at in (7, 8)} == {at: whole[at] for at in (7, 8)}


def test_a_tracker_that_stock_megatron_left_torn_is_nobodys_leave_to_train_over_its_model(
    server: Server, tmp_path: Path
) -> None:
    before = OnPlainMegatron(server, tmp_path / "run", "--exit-interval", "3")
    before.finish()
    tear(before)
    model = contents(saves(before))
    before.losses[0].unlink()
    code, log = Pretraining(server, before.output).start()
    assert (code, "policy would train over iteration 3 in its --save" in log) == (78, True), log[-3000:]
    idle = Pretraining(server, before.output)
    at = idle.argv.index("--data-checkpoint-path")
    del idle.argv[at : at + 2]
    for run, ends in ((OnPlainMegatron(server, before.output), 0), (idle, 0), (Pretraining(server, before.output), 65)):
        code, log = reads_its_own(run).start()
        assert (code, "Invalid metadata file" in log) == (ends, True), log[-3000:]
        assert not run.losses[-1].exists()
    assert "Megatron gave up loading from" in log
    assert contents(saves(before)) == model
