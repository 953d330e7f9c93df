"""The example's jobs under torchrun, undisturbed and killed, as `make test-gpu` starts them: ranks are not forked."""

import importlib.util
import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .runs import ASYNC, EPISODES, SCRIPT, SMALL
from .spread import beyond_spread, difference

# The steps of a save from its beginning to its end; the last two with asynchronous saves.
KILLS = (
    *((point, ()) for point in ("save.begin@value:2", "write.synced@value.json:2", "write.named@COMMITTED:2")),
    *((point, ()) for point in ("event.torn@committed:2", "train_step@policy:3")),
    *((point, ASYNC) for point in ("save.end@policy:2", "write.named@COMMITTED:2")),
)
DETERMINISTIC = ("--deterministic-mode",)
# What --deterministic-mode asks for, in every version of Megatron.
FIXED = {"NCCL_ALGO": "Ring", "NVTE_ALLOW_NONDETERMINISTIC_ALGO": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
LIMIT_S = 600


@dataclass(frozen=True)
class Variant:
    """One way to train the tiny model."""

    name: str
    flags: tuple[str, ...] = ()
    package: str | None = None  # that it needs
    part: str | None = None  # of the package: another project is called apex, too

    def missing(self, num_gpus: int) -> str:
        """Why it cannot be run here; empty where it can."""
        if self.package and not _has(self.package, self.part):
            return f"{self.package} is not installed here"
        if "--tensor-model-parallel-size" in self.flags and num_gpus < 2:
            return f"it needs 2 GPUs, and there is {num_gpus}"
        return ""


VARIANTS = (
    Variant("local"),
    Variant("local, tensor parallel", ("--tensor-model-parallel-size", "2")),
    Variant("bf16, distributed optimizer, Apex", ("--bf16", "--use-distributed-optimizer"), "apex", "optimizers"),
    Variant(
        "bf16, distributed optimizer, Transformer Engine",
        ("--bf16", "--use-distributed-optimizer", "--transformer-impl", "transformer_engine"),
        "transformer_engine",
    ),
)


def _has(package: str, part: str | None) -> bool:
    found = importlib.util.find_spec(package)
    folders = [Path(folder) for folder in (found.submodule_search_locations or [])] if found else []
    return any(part is None or (folder / part).is_dir() for folder in folders)


class JobFailed(Exception):
    """A start that must come to its end, or to its crash point, did not."""


@dataclass(frozen=True)
class Job:
    """One run of the example, started as often as it takes."""

    output: Path
    num_ranks: int
    flags: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()

    def start(self, name: str, crash: str | None) -> tuple[int, str]:
        """Its exit code and its log, which is kept in the output folder under `name`."""
        self.output.mkdir(parents=True, exist_ok=True)
        log = self.output / f"{name}.log"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MEGATRON_RESUME_")}
        environment |= dict(self.environment) | ({"MEGATRON_RESUME_CRASH": crash} if crash else {})
        command = ["bash", str(SCRIPT), "--model-size", "tiny", "--output", str(self.output)]
        command += ["--nproc", str(self.num_ranks), *SMALL, "--num-episodes", str(EPISODES), *self.flags]
        with open(log, "w") as file:
            job = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
            try:
                code = job.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                os.killpg(job.pid, signal.SIGKILL)  # torchrun and its ranks
                job.wait()
                raise JobFailed(f"{log}: it did not end within {LIMIT_S} s") from None
        return code, log.read_text(errors="replace")

    def finish(self, name: str) -> None:
        code, log = self.start(name, None)
        if code != 0:
            raise JobFailed(f"{self.output / name}.log: exit code {code}: {_last_line(log)}")

    def killed(self, crash: str) -> None:
        code, log = self.start("killed", crash)
        if code == 0 or f"crash point {crash.partition(':')[0]}" not in log:
            raise JobFailed(f"{self.output}/killed.log: it was not killed at {crash}; exit code {code}")

    def trace(self) -> list[dict[str, Any]]:
        """Of each iteration the line of the last attempt that ran it."""
        lines = map(json.loads, (self.output / "trace.jsonl").read_text().splitlines())
        last = {line["iteration"]: {k: v for k, v in line.items() if k != "attempt"} for line in lines}
        return [last[iteration] for iteration in sorted(last)]


def _last_line(log: str) -> str:
    return next((line for line in reversed(log.splitlines()) if "Error" in line), "see there")


def compare(folder: Path, variant: Variant, num_ranks: int, kills: Any = KILLS) -> list[tuple[str, str]]:
    """(what, difference) of each kill: exact under --deterministic-mode, else within the spread of two runs.

    Raises:
        JobFailed: A run did not come to its end, or to its kill.
    """
    found = []
    for mode, flags, environment in (("exact", DETERMINISTIC, FIXED), ("within the spread", (), {})):
        made = Job(folder / mode / "undisturbed", num_ranks, (*variant.flags, *flags), tuple(environment.items()))
        made.finish("undisturbed")
        checkpoints = made.output / "checkpoints"
        loads = ("--reference-load", str(checkpoints / "reference"), "--reward-load", str(checkpoints / "reward"))
        again = Job(folder / mode / "again", num_ranks, (*made.flags, *loads), made.environment)
        again.finish("again")
        found.append((f"{mode}: two undisturbed runs", difference(again.trace(), made.trace()) if flags else ""))
        for number, (point, save) in enumerate(kills if flags else kills[:2]):
            run = Job(folder / mode / str(number), num_ranks, (*again.flags, *save), made.environment)
            run.killed(point)
            run.finish("resumed")
            ours, theirs = run.trace(), made.trace()
            said = difference(ours, theirs) if flags else beyond_spread(ours, theirs, again.trace())
            found.append((f"{mode}: killed at {point}{', asynchronous saves' if save else ''}", said))
    return found
