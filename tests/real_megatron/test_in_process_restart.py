"""Training that begins again in a process that trained before: only a new process can resume."""

import re
from pathlib import Path

import pytest

from support.pretraining import MCORE_ASYNC, Pretraining, undisturbed_pretraining
from support.runs import Server


@pytest.mark.parametrize("flags", [(), pytest.param(MCORE_ASYNC, marks=pytest.mark.slow)], ids=["sync", "async"])
def test_pretraining_that_is_called_again_after_a_fault_ends_its_process_and_the_next_one_resumes(
    server: Server, shared_folder: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    run = Pretraining(server, tmp_path / "run", *flags)
    code, log = run.start(FAULT_AT="5")
    assert (code, "pretrain() is called again" in log) == (203, True), log[-4000:]
    assert "Megatron is initialized again in a process whose attempt 1 has begun" in log
    began = "attempt 2 resumes from iteration 3 of attempt 1"
    if flags:  # the fault may come before the asynchronous save of iteration 3 is finished
        began = f"({began}|attempt 2 starts fresh)"
    assert re.search(began, run.finish())
    assert run.effective() == undisturbed_pretraining(server, shared_folder).effective()


def test_the_option_for_it_is_refused_by_name(server: Server, tmp_path: Path) -> None:
    code, log = Pretraining(server, tmp_path / "run", "--inprocess-restart").start()
    assert (code, "--inprocess-restart trains again in a process that trained before" in log) == (78, True), log[-4000:]
    assert not (tmp_path / "run" / "data_checkpoint").exists()


def test_without_a_data_checkpoint_path_megatron_restarts_in_process_as_ever(server: Server, tmp_path: Path) -> None:
    run = Pretraining(server, tmp_path / "run", "--inprocess-restart")
    run.num_ranks = 1  # two would have to find each other again
    del run.argv[(at := run.argv.index("--data-checkpoint-path")) : at + 2]
    log = run.finish(FAULT_AT="5")
    assert "pretrain() is called again" in log
    assert list(run.effective()) == list(range(1, 9))
