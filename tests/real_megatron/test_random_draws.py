"""Who draws random numbers between the load and the first train step, as Megatron's RL does for its rollouts."""

from pathlib import Path

import pytest

from support.pretraining import OnPlainMegatron, Pretraining
from support.runs import Server, once

COLLECTS = {"COLLECTS": "3"}  # a collection is trained on for three iterations, then saved: at 3 and 6


@pytest.fixture
def undisturbed(server: Server, shared_folder: Path) -> OnPlainMegatron:
    """The job on plain Megatron, that nobody disturbs."""
    run = OnPlainMegatron(server, shared_folder / "collecting")
    once(run.output, lambda: run.finish(**COLLECTS))
    run.losses = [run.output / "losses0.txt"]
    return run


def test_what_is_collected_after_the_load_is_collected_once(
    server: Server, undisturbed: OnPlainMegatron, tmp_path: Path
) -> None:
    killed = Pretraining(server, tmp_path / "killed")
    killed.killed("commit.end", **COLLECTS)
    log = killed.finish(**COLLECTS)
    assert "resumes from iteration 3 of attempt 1" in log
    assert killed.effective() == undisturbed.effective()
    drew = "random numbers were drawn from Python's random, numpy, torch, CUDA between the last load and the first"
    assert log.count(drew) == 1


@pytest.mark.slow
def test_plain_megatron_resumes_such_a_job_the_same(
    server: Server, undisturbed: OnPlainMegatron, tmp_path: Path
) -> None:
    flags = ("--load", str(tmp_path / "stopped" / "checkpoints"))
    stopped = OnPlainMegatron(server, tmp_path / "stopped", "--exit-interval", "3")
    stopped.finish(**COLLECTS)
    resumed = OnPlainMegatron(server, tmp_path / "stopped", *flags)
    resumed.losses = list(stopped.losses)
    resumed.finish(**COLLECTS)
    assert resumed.effective() == undisturbed.effective()
