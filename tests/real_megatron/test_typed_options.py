"""Options that say what to load are followed, said to be for the base, or named; never ignored in silence."""

from pathlib import Path

import pytest

from support.pretraining import Pretraining, base_model, undisturbed_pretraining
from support.runs import Server

IGNORED = ("--finetune", "--no-load-optim", "--no-load-rng")


def of_launch(restart: int) -> dict[str, str]:
    return {"TORCHELASTIC_RUN_ID": "one launch", "TORCHELASTIC_RESTART_COUNT": str(restart)}


def test_new_options_are_named_and_a_step_of_the_own_folder_is_refused(
    server: Server, shared_folder: Path, tmp_path: Path
) -> None:
    job = Pretraining(server, tmp_path / "job")
    job.killed("commit.end")
    command = job.argv
    job.argv = [*command, "--ckpt-step", "1"]
    code, log = job.start()
    assert (code, "type --load-data-checkpoint-iteration 1 instead of --ckpt-step" in log) == (78, True), log[-4000:]
    job.losses.pop()
    job.argv = [*command, *IGNORED]
    log = job.finish()
    warning = next(line for line in log.splitlines() if "these options are not followed" in line)
    assert "WARNING" in warning
    assert [option for option in IGNORED if option not in warning] == []
    assert "attempt 2 resumes from iteration 3 of attempt 1" in log, "the refused start opened none"
    assert job.effective() == undisturbed_pretraining(server, shared_folder).effective()


@pytest.mark.slow
def test_an_unchanged_command_that_a_launcher_restarts_is_never_refused(server: Server, tmp_path: Path) -> None:
    job = Pretraining(server, tmp_path / "job")
    job.killed("commit.end")
    job.argv += ["--ckpt-step", "3"]  # as it would go on anyway
    job.killed("commit.end", **of_launch(0))
    log = job.finish(**of_launch(1))
    assert "attempt 3 resumes from iteration 6" in log
    assert "not followed: --ckpt-step (iteration 6 is loaded)" in log
    code, log = job.start(TORCHELASTIC_RUN_ID="another launch")
    assert (code, "type --load-data-checkpoint-iteration 3" in log) == (78, True), log[-4000:]


@pytest.mark.slow
def test_options_of_the_base_are_said_to_be_of_the_base_at_every_resume(
    server: Server, shared_folder: Path, tmp_path: Path
) -> None:
    base = str(base_model(server, shared_folder).output / "checkpoints")
    job = Pretraining(server, tmp_path / "job", "--load", base, "--finetune", "--ckpt-step", "3", "--no-load-rng")
    for _ in range(2):
        job.killed("commit.end")
    log = job.finish()
    line = next(line for line in log.splitlines() if "chose what its training began from" in line)
    assert "INFO" in line
    assert "--load, --ckpt-step, --finetune, --no-load-rng" in line
    assert "not followed" not in log
