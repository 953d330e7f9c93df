"""Start the example under torchrun as a person would, and kill it where the demo wants it to die."""

import os
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "train_rlhf_llama.sh"
LOAD_ORDER = ("reference", "reward", "policy", "value")  # in which the example loads its models
POLL_S = 0.2

_LOADED = re.compile(r"successfully loaded checkpoint from (.*?) \[.*at iteration (\d+)")


class DemoFailed(Exception):
    """A run did not do what the demo needs; the message names its log."""


@dataclass(frozen=True)
class Load:
    """What a role loaded at one start."""

    iteration: int
    folder: str


@dataclass(frozen=True)
class Start:
    """One start of the training command, from its beginning to its end or death."""

    log: Path
    killed_at: str | None  # the crash point, or None when it ran to its end
    seconds: float

    def loads(self) -> dict[str, Load]:
        """What each role loaded, by Megatron's own messages."""
        found = _LOADED.findall(self.log.read_text(errors="replace"))
        return {
            role: Load(int(iteration), folder) for role, (folder, iteration) in zip(LOAD_ORDER, found, strict=False)
        }


def train(
    argv: list[str],
    log: Path,
    *,
    crash_at: str | None = None,
    show: Callable[[str], None] = lambda line: None,
) -> Start:
    """Run the training command until it ends; `show` gets its newest progress line now and then.

    Raises:
        DemoFailed: It failed without being killed, or ended without reaching the crash point.
    """
    environment = _environment()
    if crash_at is not None:
        environment["MEGATRON_RESUME_CRASH"] = crash_at
    started = time.monotonic()
    with open(log, "wb") as output:
        process = subprocess.Popen(
            ["bash", str(SCRIPT), *argv],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                show(_newest_progress(log))
                time.sleep(POLL_S)
        except BaseException:
            process.terminate()  # torchrun ends its ranks
            process.wait()
            raise
    _check_end(process.returncode, log, crash_at)
    return Start(log, crash_at, time.monotonic() - started)


def _environment() -> dict[str, str]:
    """Ours without what belongs to another job, and without GPUs: the demo is the same everywhere."""
    theirs = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    ours = {k: v for k, v in os.environ.items() if not k.startswith("MEGATRON_RESUME_") and k not in theirs}
    return {**ours, "CUDA_VISIBLE_DEVICES": ""}


def _check_end(code: int, log: Path, crash_at: str | None) -> None:
    died = "crash point" in log.read_text(errors="replace")
    if crash_at is None and code != 0:
        raise DemoFailed(f"the training command failed with exit code {code}; see {log}")
    if crash_at is not None and not (died and code != 0):
        raise DemoFailed(f"the run was to be killed at {crash_at} but ended with exit code {code}; see {log}")


def _newest_progress(log: Path) -> str:
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - 8192))
        lines = file.read().decode(errors="replace").splitlines()
    return next((line for line in reversed(lines) if line.startswith("episode ")), "importing torch and Megatron")
