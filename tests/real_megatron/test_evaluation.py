"""An evaluation of a job's checkpoint loads the right one, and leaves nothing behind."""

import re
import threading
from pathlib import Path

import pytest

from support.job_on_disk import contents
from support.pretraining import Pretraining, undisturbed_pretraining
from support.runs import Server
from support.waiting import until

EVALUATES = ("--skip-train", "--eval-iters", "2")


def evaluate(job: Pretraining, *flags: str) -> tuple[str, str]:
    """What Megatron says of the validation set, and the log."""
    command, job.argv = job.argv, [*job.argv, *EVALUATES, *flags]
    code, log = job.start(EVALUATED="1")
    job.argv = command
    job.losses.pop()
    assert code == 0, log[-4000:]
    (said,) = re.findall(r"validation loss at (.*on validation set \|.*)\|", log)
    return said, log


def saved(job: Pretraining) -> list[dict[str, bytes | None]]:
    return [contents(job.output / folder) for folder in ("data_checkpoint", "checkpoints")]


def alone(job: Pretraining, *flags: str) -> str:
    """The same of the same command where nothing resumes, so as Megatron alone says it."""
    plain = Pretraining(job.server, job.output)
    at = plain.argv.index("--data-checkpoint-path")
    del plain.argv[at : at + 2]
    return evaluate(plain, "--load", str(job.output / "checkpoints"), *flags)[0]


@pytest.mark.parametrize("resumes", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_it_loads_the_newest_point_and_the_job_goes_on_as_if_it_had_not_been(
    server: Server, shared_folder: Path, tmp_path: Path, resumes: bool
) -> None:
    job = Pretraining(server, tmp_path / "job")
    job.killed("commit.end")
    before = saved(job)
    own_folder = ("--no-enable-resume-training", "--load", str(job.output / "checkpoints"))
    said, log = evaluate(job, *(() if resumes else own_folder))
    assert saved(job) == before
    assert said.startswith("iteration 3 ")
    assert said == alone(job, "--ckpt-step", "3")
    assert ("--skip-train: iteration 3 of attempt 1 is evaluated, and no attempt begins" in log) is resumes
    assert "attempt 2 resumes from iteration 3 of attempt 1" in job.finish()
    assert job.effective() == undisturbed_pretraining(server, shared_folder).effective()


@pytest.mark.slow
def test_it_may_run_while_the_job_trains(server: Server, tmp_path: Path) -> None:
    job, gate = Pretraining(server, tmp_path / "job"), tmp_path / "gate"
    another = Pretraining(server.another(), tmp_path / "job")
    training = threading.Thread(target=lambda: job.finish(GATE=f"5:{gate}"))
    training.start()
    until(lambda: Path(f"{gate}.waits").exists())
    until(lambda: (tmp_path / "job/data_checkpoint/iter_0000003.a0001/COMMITTED").exists())
    said, _ = evaluate(another)
    gate.touch()
    training.join()
    another.server.close()
    assert said.startswith("iteration 3 ")
    assert [(one["attempt"], one["last_commit"]) for one in job.status()["attempts"]] == [(1, 8)]


@pytest.mark.slow
def test_a_start_that_nothing_was_saved_of_is_evaluated_as_megatron_alone_does(server: Server, tmp_path: Path) -> None:
    job = Pretraining(server, tmp_path / "job")
    said, log = evaluate(job)
    assert "what --load names is evaluated, and no attempt begins: nothing was committed yet" in log
    assert said.startswith("iteration 0 ")
    assert not (job.output / "data_checkpoint").exists() and not (job.output / "checkpoints").exists()


@pytest.mark.slow
def test_options_that_ask_for_another_iteration_hold_for_an_evaluation_too(server: Server, tmp_path: Path) -> None:
    job = Pretraining(server, tmp_path / "job")
    job.killed("commit.end")
    job.killed("commit.end")
    said, _ = evaluate(job, "--load-data-checkpoint-iteration", "3")
    assert said.startswith("iteration 3 ")
    assert evaluate(job)[0].startswith("iteration 6 ")
    command, job.argv = job.argv, [*job.argv, *EVALUATES, "--ckpt-step", "3"]
    code, log = job.start()
    assert (code, "type --load-data-checkpoint-iteration 3 instead" in log) == (78, True), log[-4000:]
    job.argv = command
    assert "attempt 3 resumes from iteration 6 of attempt 2" in job.finish()
