"""A load that fails costs no point: neither that one for ever, nor those in between."""

import errno
from pathlib import Path

import pytest

from support import PROGRAMS
from support.pretraining import Pretraining, undisturbed_pretraining
from support.runs import Server

FAILS = """
import os
import megatron_resume.auto
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
from megatron.training import get_args as arguments_now

restore = OptimizerParamScheduler.load_state_dict


def restore_or_fail(self, state):
    if str(arguments_now().ckpt_step) in os.environ.get("UNLOADABLE", "").split(","):
        if "ERRNO" in os.environ:
            raise OSError(int(os.environ["ERRNO"]), "the storage does not answer")
        raise RuntimeError("the options do not fit the checkpoint")
    restore(self, state)


OptimizerParamScheduler.load_state_dict = restore_or_fail
"""


@pytest.fixture
def job(server: Server, tmp_path: Path) -> Pretraining:
    """Two points are committed."""
    made = Pretraining(server, tmp_path / "job")
    made.script = tmp_path / "pretrain.py"
    made.script.write_text(FAILS + (PROGRAMS / "stock_pretrain.py").read_text())
    made.killed("commit.end:2")
    return made


def fails(job: Pretraining, unloadable: str) -> str:
    code, log = job.start(UNLOADABLE=unloadable)
    assert (code, "the options do not fit the checkpoint" in log) == (1, True), log[-4000:]
    job.losses.pop()
    return log


def models(job: Pretraining) -> set[str]:
    return {path.name for path in (job.output / "checkpoints").glob("iter_*")}


def test_options_that_no_point_can_be_loaded_with_cost_nothing(
    server: Server, shared_folder: Path, job: Pretraining
) -> None:
    assert "attempt 2 resumes from iteration 6 of attempt 1" in fails(job, "3,6")
    log = fails(job, "3,6")
    assert "attempt 3 resumes from iteration 3 of attempt 1" in log
    assert "3 iterations to run again): it is the next older whole point" in log
    assert models(job) == {"iter_0000003", "iter_0000006"}, "it has not trained"
    log = job.finish()
    assert "attempt 4 resumes from iteration 6 of attempt 1" in log
    assert job.effective() == undisturbed_pretraining(server, shared_folder).effective()


def test_storage_that_did_not_answer_costs_no_iteration(server: Server, shared_folder: Path, job: Pretraining) -> None:
    code, log = job.start(UNLOADABLE="6", ERRNO=str(errno.ESTALE))
    assert (code, "the storage does not answer" in log) == (1, True), log[-4000:]
    job.losses.pop()
    assert "attempt 3 resumes from iteration 6 of attempt 1" in job.finish()
    assert job.effective() == undisturbed_pretraining(server, shared_folder).effective()


@pytest.mark.slow
@pytest.mark.parametrize("crash", ["lineage.claimed", "move.renamed@iter_0000006", "train_step@policy:2"])
def test_a_point_that_cannot_be_loaded_is_left_behind_once_the_older_one_trains(
    server: Server, shared_folder: Path, job: Pretraining, crash: str
) -> None:
    fails(job, "6")
    job.killed(crash, UNLOADABLE="6")
    aside = job.output / "checkpoints/abandoned/a0003/iter_0000006"
    assert aside.is_dir() is (crash != "lineage.claimed")
    assert models(job) == ({"iter_0000003"} if aside.is_dir() else {"iter_0000003", "iter_0000006"})
    job.losses = [file for file in job.losses if file.exists()]
    assert "attempt 4 resumes from iteration 3 of attempt 1" in job.finish()
    assert job.effective() == undisturbed_pretraining(server, shared_folder).effective()


@pytest.mark.slow
def test_a_fresh_start_on_purpose_that_dies_before_it_trains_does_not_block_the_job(job: Pretraining) -> None:
    command, job.argv = job.argv, [*job.argv, "--no-enable-resume-training"]
    job.killed("start.end")
    job.argv = command
    assert "attempt 3 resumes from iteration 6 of attempt 1" in job.finish()
