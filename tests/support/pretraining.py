"""Megatron's own pretraining loop, unedited, as a job that may be killed; and what must hold of it on any Megatron."""

import shutil
from pathlib import Path
from typing import Any

from . import PROGRAMS
from .runs import ASYNC, Server, has_committed, megatron_flags, once, status_of


class Pretraining:
    """One pretraining job of 8 iterations that saves after every third."""

    num_ranks = 2
    script: Path | None = None  # that imports us itself; else ours is run, unedited, by `megatron-resume run`

    def __init__(self, server: Server, output: Path, *flags: str):
        self.server, self.output = server, output
        output.mkdir(parents=True, exist_ok=True)
        self.losses: list[Path] = []  # one file a start
        options = "--train-iters 8 --save-interval 3 --eval-iters 0 --eval-interval 100 --log-interval 1"
        options += " --dataloader-type single --no-check-for-nan-in-loss-and-grad --trained-roles policy"
        options += " --attention-dropout 0.1 --hidden-dropout 0.1"
        self.by = PROGRAMS / "run_command.py"
        self.argv = [*megatron_flags(output), "--save", str(output / "checkpoints"), *options.split(), *flags]

    def start(self, crash: str | None = None, sigterm_at: int | None = None, **more: str) -> tuple[int, str]:
        log = self.output / "log.txt"
        self.losses.append(self.output / f"losses{len(self.losses)}.txt")
        env = {"MEGATRON_RESUME_CRASH": crash, "LOSSES": str(self.losses[-1]), **more}
        env["SIGTERM_AT"] = None if sigterm_at is None else str(sigterm_at)
        job: dict[str, Any] = {"name": "pretrain", "log": str(log), "num_ranks": self.num_ranks}
        job["script"] = str(self.script or self.by)
        argv = [*([] if self.script else [str(PROGRAMS / "stock_pretrain.py")]), *self.argv]
        result = self.server.run(**job, argv=argv, env=env, fork_helpers=True)
        return result["code"], log.read_text()

    def finish(self, **more: str) -> str:
        """Start the job, which must come to its end; its log."""
        code, log = self.start(**more)
        assert code == 0, log[-4000:]
        return log

    def killed(self, crash: str, committed: int | None = None, **more: str) -> None:
        """Start the job, which must die at its crash point.

        As of Run: where the kill came before the iteration was `committed` the job is begun anew.
        """
        for _ in range(10):
            code, log = self.start(crash=crash, **more)
            assert (code, f"crash point {crash.partition(':')[0]}" in log) == (-9, True), log[-4000:]
            if committed is None or has_committed(self.output / "data_checkpoint", committed):
                return
            assert len(self.losses) == 1, f"iteration {committed} was not committed before {crash}"
            shutil.rmtree(self.output)
            self.output.mkdir()
            self.losses.clear()
        raise AssertionError(f"ten times iteration {committed} was not committed before {crash}")

    def status(self) -> dict[str, Any]:
        return status_of(self.output / "data_checkpoint")

    def effective(self) -> dict[int, str]:
        """Of each iteration what the last attempt that ran it saw."""
        seen: dict[int, list[str]] = {}
        for file in self.losses:
            of_this_start: dict[int, list[str]] = {}
            for line in file.read_text().splitlines():
                of_this_start.setdefault(int(line.split()[0]), []).append(line)
            seen |= of_this_start
        return {iteration: "\n".join(found) for iteration, found in seen.items()}


class OnPlainMegatron(Pretraining):
    """The same job without us, resumed by Megatron alone where it is given its --load."""

    def __init__(self, server: Server, output: Path, *flags: str):
        super().__init__(server, output, *flags)
        self.by = PROGRAMS / "plain.py"
        for ours in ("--data-checkpoint-path", "--trained-roles"):
            at = self.argv.index(ours)
            del self.argv[at : at + 2]


MCORE_ASYNC = (*ASYNC, "--async-strategy", "mcore")  # from 0.17 on Megatron's default needs another package


def undisturbed_pretraining(server: Server, shared: Path, *flags: str) -> Pretraining:
    """A job below `shared` that nobody disturbs, trained by the first worker that asks for it."""
    run = Pretraining(server, shared / "_".join(["pretraining", *flags]).replace("/", "_"), *flags)
    once(run.output, run.finish)
    run.losses = [run.output / "losses0.txt"]
    return run


def check_exact_resume(server: Server, folder: Path, *flags: str, undisturbed: Pretraining) -> None:
    """Killed after its first commit and started again, the job trains as an undisturbed one."""
    killed = Pretraining(server, folder / "killed", *flags)
    killed.killed("commit.end")  # the first save is committed, however long it took
    log = killed.finish()
    assert "attempt 2 resumes from iteration 3 of attempt 1 (next episode 0, 96 samples consumed, " in log
    assert killed.effective() == undisturbed.effective()
    assert list(killed.effective()) == list(range(1, 9))

    status = killed.status()
    assert status["point"] == {"iteration": 8, "attempt": 2}
    assert status["trained_roles"] == ["policy"]


def base_model(server: Server, shared: Path) -> Pretraining:
    """A job that was trained before."""
    return undisturbed_pretraining(server, shared, "--exit-interval", "3")


def check_fine_tuning(server: Server, folder: Path, shared: Path) -> None:
    trained_before = base_model(server, shared)
    flags = ("--sft", "--finetune", "--load", str(trained_before.output / "checkpoints"))
    undisturbed = Pretraining(server, folder / "undisturbed", *flags)
    undisturbed.finish()
    check_exact_resume(server, folder, *flags, undisturbed=undisturbed)
    first, base = (next(iter(file.open())) for file in (folder / "killed/losses0.txt", trained_before.losses[0]))
    assert first.split()[0] == base.split()[0] == "1"
    assert first.split()[1] != base.split()[1], "it would be the loss of a model with random weights"


def check_reference_of_rl(server: Server, folder: Path, shared: Path) -> None:
    """Megatron's RL loads a reference into policy's model before it trains, and puts policy back."""
    digests = folder / "references.txt"
    base = ("--pretrained-checkpoint", str(base_model(server, shared).output / "checkpoints"))
    run = Pretraining(server, folder / "rl", *base)
    run.killed("commit.end", REFERENCE=str(digests))
    log = run.finish(REFERENCE=str(digests))
    assert "resumes from iteration 3 of attempt 1" in log
    fresh, resumed = digests.read_text().split()
    assert fresh == resumed
    undisturbed = Pretraining(server, folder / "undisturbed", *base)
    undisturbed.finish(REFERENCE=str(digests))
    assert run.effective() == undisturbed.effective()
