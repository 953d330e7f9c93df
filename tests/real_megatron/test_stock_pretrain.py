"""Megatron's own pretraining loop, unedited: `megatron-resume run` makes it resume, exactly."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from runs import ASYNC, ROOT, SYNC, Server
from test_arguments import megatron_flags

HERE = ROOT / "tests" / "real_megatron"


class Pretraining:
    """One pretraining job of 8 iterations that saves after every third."""

    script: Path | None = None  # that imports us itself; else ours is run, unedited, by `megatron-resume run`

    def __init__(self, server: Server, output: Path, *flags: str):
        self.server, self.output = server, output
        output.mkdir()
        self.losses: list[Path] = []  # one file a start
        options = "--train-iters 8 --save-interval 3 --eval-iters 0 --eval-interval 100 --log-interval 1"
        options += " --dataloader-type single --no-check-for-nan-in-loss-and-grad --trained-roles policy"
        options += " --attention-dropout 0.1 --hidden-dropout 0.1"
        self.argv = [*megatron_flags(output), "--save", str(output / "checkpoints"), *options.split(), *flags]

    def start(self, crash: str | None = None, sigterm_at: int | None = None, **more: str) -> tuple[int, str]:
        log = self.output / "log.txt"
        self.losses.append(self.output / f"losses{len(self.losses)}.txt")
        env = {"MEGATRON_RESUME_CRASH": crash, "LOSSES": str(self.losses[-1]), **more}
        env["SIGTERM_AT"] = None if sigterm_at is None else str(sigterm_at)
        job: dict[str, Any] = {"name": "pretrain", "log": str(log)}
        job["script"] = str(self.script or HERE / "run_command.py")
        argv = [*([] if self.script else [str(HERE / "stock_pretrain.py")]), *self.argv]
        result = self.server.run(**job, argv=argv, env=env, fork_helpers=True)
        return result["code"], log.read_text()

    def finish(self, **more: str) -> str:
        """Start the job, which must come to its end; its log."""
        code, log = self.start(**more)
        assert code == 0, log[-4000:]
        return log

    def killed(self, crash: str, **more: str) -> None:
        """Start the job, which must die at its crash point."""
        code, log = self.start(crash=crash, **more)
        assert (code, f"crash point {crash.partition(':')[0]}" in log) == (-9, True), log[-4000:]

    def status(self) -> dict[str, Any]:
        command = [sys.executable, "-m", "megatron_resume", "status", str(self.output / "data_checkpoint"), "--json"]
        report: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        return report

    def effective(self) -> dict[int, str]:
        """Of each iteration what the last attempt that ran it saw."""
        seen: dict[int, list[str]] = {}
        for file in self.losses:
            of_this_start: dict[int, list[str]] = {}
            for line in file.read_text().splitlines():
                of_this_start.setdefault(int(line.split()[0]), []).append(line)
            seen |= of_this_start
        return {iteration: "\n".join(found) for iteration, found in seen.items()}


MCORE_ASYNC = (*ASYNC, "--async-strategy", "mcore")  # from 0.17 on Megatron's default needs another package


@pytest.mark.parametrize("save", [SYNC, MCORE_ASYNC], ids=["sync", "async"])
def test_an_unedited_pretraining_script_resumes_exactly(server: Server, tmp_path: Path, save: tuple[str, ...]) -> None:
    check_exact_resume(server, tmp_path, *save)


def check_exact_resume(server: Server, folder: Path, *flags: str) -> None:
    """Killed after its first commit and started again, the job trains as an undisturbed one."""
    undisturbed = Pretraining(server, folder / "undisturbed", *flags)
    undisturbed.finish()
    killed = Pretraining(server, folder / "killed", *flags)
    killed.killed("commit.end")  # the first save is committed, however long it took
    log = killed.finish()
    assert "attempt 2 resumes from iteration 3 of attempt 1 (next episode 0, 96 samples consumed, " in log
    assert killed.effective() == undisturbed.effective()
    assert list(killed.effective()) == list(range(1, 9))

    status = killed.status()
    assert status["point"] == {"iteration": 8, "attempt": 2}
    assert status["trained_roles"] == ["policy"]


def test_the_import_line_alone_resumes_as_well(server: Server, tmp_path: Path) -> None:
    script = tmp_path / "pretrain.py"
    script.write_text("import megatron_resume.auto\n" + (HERE / "stock_pretrain.py").read_text())
    undisturbed, killed = Pretraining(server, tmp_path / "undisturbed"), Pretraining(server, tmp_path / "killed")
    undisturbed.finish()
    killed.script = script
    killed.killed("commit.end")
    assert "attempt 2 resumes from iteration 3 of attempt 1" in killed.finish()
    assert killed.effective() == undisturbed.effective()


def test_fine_tuning_begins_from_its_base_and_goes_on_from_its_own_point(server: Server, tmp_path: Path) -> None:
    check_fine_tuning(server, tmp_path)


def base_model(server: Server, folder: Path) -> str:
    """The save folder of a job that was trained before."""
    base = Pretraining(server, folder / "base", "--exit-interval", "3")
    base.finish()
    return str(base.output / "checkpoints")


def check_fine_tuning(server: Server, folder: Path) -> None:
    check_exact_resume(server, folder, "--sft", "--finetune", "--load", base_model(server, folder))
    first, base = (next(iter(file.open())) for file in (folder / "killed/losses0.txt", folder / "base/losses0.txt"))
    assert first.split()[0] == base.split()[0] == "1"
    assert first.split()[1] != base.split()[1], "it would be the loss of a model with random weights"


def test_rl_gets_its_reference_from_the_base_also_on_a_resumed_start(server: Server, tmp_path: Path) -> None:
    check_reference_of_rl(server, tmp_path)


def check_reference_of_rl(server: Server, folder: Path) -> None:
    """Megatron's RL loads a reference into policy's model before it trains, and puts policy back."""
    digests = folder / "references.txt"
    base = ("--pretrained-checkpoint", base_model(server, folder))
    run = Pretraining(server, folder / "rl", *base)
    run.killed("commit.end", REFERENCE=str(digests))
    log = run.finish(REFERENCE=str(digests))
    assert "resumes from iteration 3 of attempt 1" in log
    fresh, resumed = digests.read_text().split()
    assert fresh == resumed
    undisturbed = Pretraining(server, folder / "undisturbed", *base)
    undisturbed.finish(REFERENCE=str(digests))
    assert run.effective() == undisturbed.effective()


@pytest.mark.parametrize("base", ["nothing", "its own folder"])
def test_rl_whose_reference_would_be_the_trained_weights_is_refused(server: Server, tmp_path: Path, base: str) -> None:
    run = Pretraining(server, tmp_path / "rl")
    run.killed("commit.end", REFERENCE=str(tmp_path / "references.txt"))
    if base != "nothing":
        run.argv += ["--pretrained-checkpoint", str(run.output / "checkpoints")]
    code, log = run.start(REFERENCE=str(tmp_path / "references.txt"))
    assert code == 78, log[-4000:]
    message = "the reference would be the weights of the resume point" if base == "nothing" else "would follow the"
    assert message in log
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


def test_progress_that_only_rank_0_asks_for_hangs_nothing(server: Server, tmp_path: Path) -> None:
    run = Pretraining(server, tmp_path / "run")
    log = run.finish(LOOKS_AT_PROGRESS="1")
    assert "policy of iteration 3 will not be committed: episode 0 is not done" in log


@pytest.mark.parametrize("format_", ["torch_dist", "torch"])
def test_arguments_that_megatron_reads_from_its_own_checkpoint_are_no_difference(
    server: Server, tmp_path: Path, format_: str
) -> None:
    save = str(tmp_path / "run" / "checkpoints")
    run = Pretraining(server, tmp_path / "run", "--ckpt-format", format_, "--use-checkpoint-args", "--load", save)
    run.killed("commit.end")
    log = run.finish()
    assert "saved with another configuration" not in log
