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
        job: dict[str, Any] = {"name": "pretrain", "script": str(HERE / "run_command.py"), "log": str(log)}
        argv = [str(HERE / "stock_pretrain.py"), *self.argv]
        result = self.server.run(**job, argv=argv, env=env, fork_helpers=True)
        return result["code"], log.read_text()

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


@pytest.mark.parametrize("save", [SYNC, (*ASYNC, "--async-strategy", "mcore")], ids=["sync", "async"])
def test_an_unedited_pretraining_script_resumes_exactly(server: Server, tmp_path: Path, save: tuple[str, ...]) -> None:
    undisturbed = Pretraining(server, tmp_path / "undisturbed", *save)
    code, log = undisturbed.start()
    assert code == 0, log[-4000:]

    killed = Pretraining(server, tmp_path / "killed", *save)
    code, log = killed.start(crash="commit.end")  # the first save is committed, however long it took
    assert (code, "crash point commit.end" in log) == (-9, True), log[-4000:]
    code, log = killed.start()
    assert code == 0, log[-4000:]
    assert "attempt 2 resumes from iteration 3 of attempt 1 (next episode 0, 96 samples consumed, " in log
    assert killed.effective() == undisturbed.effective()
    assert list(killed.effective()) == list(range(1, 9))

    status = killed.status()
    assert status["point"] == {"iteration": 8, "attempt": 2}
    assert status["trained_roles"] == ["policy"]


@pytest.mark.parametrize("how", ["megatron's option", "a policy"])
def test_a_job_that_a_signal_stopped_ends_with_202_and_goes_on(server: Server, tmp_path: Path, how: str) -> None:
    job = Pretraining(server, tmp_path / "stopped", *["--exit-signal-handler"] * (how == "megatron's option"))
    policy = {"MEGATRON_RESUME_POLICY": "{}"} if how == "a policy" else {}
    code, log = job.start(sigterm_at=5, **policy)
    assert (code, "exiting program after receiving SIGTERM" in log) == (202, True), log[-4000:]
    code, log = job.start()
    assert code == 0, log[-4000:]
    stopped, finished = job.status()["attempts"]
    assert (stopped["last_commit"], stopped["processes"][0]["says"]) == (5, "stopped with exit code 202: SIGTERM")
    assert (finished["last_commit"], finished["processes"][0]["says"]) == (8, "finished")
    assert list(job.effective()) == list(range(1, 9))


def test_a_fresh_start_that_died_while_it_cleared_the_save_folder_leaves_one_that_starts(
    server: Server, tmp_path: Path
) -> None:
    run = Pretraining(server, tmp_path / "run", "--load", str(tmp_path / "run" / "checkpoints"))
    for crash in ("model.synced", "move.renamed@iter_0000003"):
        code, log = run.start(crash=crash)
        assert (code, f"crash point {crash}" in log) == (-9, True), log[-4000:]
    code, log = run.start()
    assert code == 0, log[-4000:]
    assert run.status()["point"] == {"iteration": 8, "attempt": 3}


def test_progress_that_only_rank_0_asks_for_hangs_nothing(server: Server, tmp_path: Path) -> None:
    run = Pretraining(server, tmp_path / "run")
    code, log = run.start(LOOKS_AT_PROGRESS="1")
    assert code == 0, log[-4000:]
    assert "policy of iteration 3 will not be committed: episode 0 is not done" in log


@pytest.mark.parametrize("format_", ["torch_dist", "torch"])
def test_arguments_that_megatron_reads_from_its_own_checkpoint_are_no_difference(
    server: Server, tmp_path: Path, format_: str
) -> None:
    save = str(tmp_path / "run" / "checkpoints")
    run = Pretraining(server, tmp_path / "run", "--ckpt-format", format_, "--use-checkpoint-args", "--load", save)
    code, log = run.start(crash="commit.end")
    assert (code, "crash point commit.end" in log) == (-9, True), log[-4000:]
    code, log = run.start()
    assert code == 0, log[-4000:]
    assert "saved with another configuration" not in log
