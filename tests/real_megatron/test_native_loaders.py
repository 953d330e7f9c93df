"""Megatron's own loaders: a resume that would lose or repeat rows is refused, and goes on only knowingly."""

from pathlib import Path

import pytest

from support.job_on_disk import contents
from support.pretraining import Pretraining, check_exact_resume
from support.runs import Server

CYCLIC = ("--dataloader-type", "cyclic")


def test_a_shuffling_loader_on_fewer_ranks_is_refused_and_goes_on_knowingly(server: Server, tmp_path: Path) -> None:
    run = Pretraining(server, tmp_path / "run", *CYCLIC)
    run.killed("commit.end")
    before = contents(run.output / "data_checkpoint"), contents(run.output / "checkpoints")
    run.num_ranks = 1
    code, log = run.start()
    assert (code, "Traceback" in log) == (78, False), log[-4000:]
    assert "the prompts do not go on where iteration 3 of attempt 1 stopped" in log
    assert "shuffled a bucket for each of 2 ranks, and there are 1 now" in log
    assert (contents(run.output / "data_checkpoint"), contents(run.output / "checkpoints")) == before
    assert not run.losses.pop().exists()
    run.argv.append("--accept-inexact-data")
    log = run.finish()
    assert "WARNING:megatron_resume:rows come again or never, as --accept-inexact-data allows" in log
    assert "attempt 2 resumes from iteration 3 of attempt 1" in log


@pytest.mark.slow
def test_a_shuffling_loader_in_its_own_shape_goes_on_exactly(server: Server, tmp_path: Path) -> None:
    undisturbed = Pretraining(server, tmp_path / "undisturbed", *CYCLIC)
    undisturbed.finish()
    check_exact_resume(server, tmp_path, *CYCLIC, undisturbed=undisturbed)


@pytest.mark.slow
def test_an_external_loader_without_a_place_is_warned_of_and_refused(server: Server, tmp_path: Path) -> None:
    run = Pretraining(server, tmp_path / "run", "--dataloader-type", "external")
    code, log = run.start(crash="commit.end")
    assert code == -9, log[-4000:]
    assert log.count("a resume will be refused, since rows would come again or never") == 1
    code, log = run.start()
    assert (code, "external has no place in its data that is saved" in log) == (78, True), log[-4000:]
    assert not run.losses.pop().exists()
    run.argv.append("--accept-inexact-data")
    assert "resumes from iteration 3 of attempt 1" in run.finish()
