"""Megatron's own pretraining loop, unedited: `megatron-resume run` makes it resume, exactly."""

from pathlib import Path

import pytest

from support import PROGRAMS
from support.pretraining import (
    MCORE_ASYNC,
    Pretraining,
    check_exact_resume,
    check_fine_tuning,
    check_reference_of_rl,
    undisturbed_pretraining,
)
from support.runs import SYNC, Server


@pytest.mark.parametrize("save", [SYNC, MCORE_ASYNC], ids=["sync", "async"])
def test_an_unedited_pretraining_script_resumes_exactly(
    server: Server, shared_folder: Path, tmp_path: Path, save: tuple[str, ...]
) -> None:
    check_exact_resume(server, tmp_path, *save, undisturbed=undisturbed_pretraining(server, shared_folder))


def test_the_import_line_alone_resumes_as_well(server: Server, shared_folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "pretrain.py"
    script.write_text("import megatron_resume.auto\n" + (PROGRAMS / "stock_pretrain.py").read_text())
    undisturbed, killed = undisturbed_pretraining(server, shared_folder), Pretraining(server, tmp_path / "killed")
    killed.script = script
    killed.killed("commit.end")
    assert "attempt 2 resumes from iteration 3 of attempt 1" in killed.finish()
    assert killed.effective() == undisturbed.effective()


def test_fine_tuning_begins_from_its_base_and_goes_on_from_its_own_point(
    server: Server, shared_folder: Path, tmp_path: Path
) -> None:
    check_fine_tuning(server, tmp_path, shared_folder)


def test_rl_gets_its_reference_from_the_base_also_on_a_resumed_start(
    server: Server, shared_folder: Path, tmp_path: Path
) -> None:
    check_reference_of_rl(server, tmp_path, shared_folder)


def test_rl_whose_reference_would_be_the_trained_weights_is_refused(server: Server, tmp_path: Path) -> None:
    run = Pretraining(server, tmp_path / "rl")
    run.killed("commit.end", REFERENCE=str(tmp_path / "references.txt"))
    of_nothing, of_its_own_folder = run.argv, [*run.argv, "--pretrained-checkpoint", str(run.output / "checkpoints")]
    for argv, message in (
        (of_nothing, "the reference would be the weights of the resume point"),
        (of_its_own_folder, "would follow the"),
    ):
        run.argv = argv
        code, log = run.start(REFERENCE=str(tmp_path / "references.txt"))
        assert (code, message in log) == (78, True), log[-4000:]
        assert run.losses[-1].exists() is False, "it was refused before it trained"


@pytest.mark.parametrize("how", ["megatron's option", "a policy"])
def test_a_job_that_a_signal_stopped_ends_with_202_and_goes_on(server: Server, tmp_path: Path, how: str) -> None:
    job = Pretraining(server, tmp_path / "stopped", *["--exit-signal-handler"] * (how == "megatron's option"))
    policy = {"MEGATRON_RESUME_POLICY": "{}"} if how == "a policy" else {}
    code, log = job.start(sigterm_at=5, **policy)
    assert (code, "exiting program after receiving SIGTERM" in log) == (202, True), log[-4000:]
    job.finish()
    stopped, finished = job.status()["attempts"]
    assert (stopped["last_commit"], stopped["processes"][0]["says"]) == (5, "stopped with exit code 202: SIGTERM")
    assert (finished["last_commit"], finished["processes"][0]["says"]) == (8, "finished")
    assert list(job.effective()) == list(range(1, 9))


def test_a_fresh_start_that_died_while_it_cleared_the_save_folder_leaves_one_that_starts(
    server: Server, tmp_path: Path
) -> None:
    run = Pretraining(server, tmp_path / "run", "--load", str(tmp_path / "run" / "checkpoints"))
    for crash in ("model.synced", "move.renamed@iter_0000003"):
        run.killed(crash)
    run.finish()
    assert run.status()["point"] == {"iteration": 8, "attempt": 3}


@pytest.mark.parametrize("elsewhere", [False, True], ids=["below --save", "elsewhere"])
def test_a_newer_non_persistent_checkpoint_is_named_and_not_used(
    server: Server, shared_folder: Path, tmp_path: Path, elsewhere: bool
) -> None:
    folder = tmp_path / ("elsewhere" if elsewhere else "run/checkpoints/non_persistent")
    flags = ["--non-persistent-save-interval", "1", "--non-persistent-ckpt-type", "global"]
    flags += ["--non-persistent-global-ckpt-dir", str(folder)] if elsewhere else []
    run = Pretraining(server, tmp_path / "run", *flags)
    run.killed("train_step@policy:6", committed=3)
    log = run.finish()
    assert "resumes from iteration 3 of attempt 1" in log
    (told,) = [line for line in log.splitlines() if "is not used" in line]
    assert f"{folder}/iter_0000005 holds a newer checkpoint of policy" in told
    assert "WARNING" in told
    assert run.effective() == undisturbed_pretraining(server, shared_folder).effective()


def test_an_older_non_persistent_checkpoint_is_not_mentioned(server: Server, tmp_path: Path) -> None:
    run = Pretraining(
        server, tmp_path / "run", "--non-persistent-save-interval", "5", "--non-persistent-ckpt-type", "global"
    )
    run.killed("commit.end:2")  # before or after it no other than that of iteration 5 is saved
    log = run.finish()
    assert "resumes from iteration 6 of attempt 1" in log
    assert "is not used" not in log


def test_progress_that_only_rank_0_asks_for_hangs_nothing(server: Server, tmp_path: Path) -> None:
    run = Pretraining(server, tmp_path / "run")
    log = run.finish(LOOKS_AT_PROGRESS="1")
    assert "policy of iteration 3 will not be committed: episode 0 is not done" in log
