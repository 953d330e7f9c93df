"""`megatron-resume launch` of two small ranks that end as they are told, without Megatron. Real launch engines."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from megatron_resume.processes import descendants

from . import TESTS
from .waiting import until

RANK = TESTS / "launch" / "rank.py"


MARKER = "TEST_LAUNCH"  # in the environment of all that a launch starts


class Launched:
    """`megatron-resume launch` of two ranks that end as `how` says."""

    def __init__(self, folder: Path, how: str, policy: str = "", options: Sequence[str] = ()) -> None:
        self.folder, self._token = folder, uuid.uuid4().hex
        (folder / "policy.yaml").write_text(policy)
        command = [
            "launch",
            *options,
            "--nproc-per-node",
            "2",
            "--policy",
            str(folder / "policy.yaml"),
            "--",
            str(RANK),
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "megatron_resume", *command, how, str(folder)],
            env={**os.environ, MARKER: self._token},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def end(self) -> tuple[int, str]:
        """Exit code and output."""
        out, _ = self.process.communicate(timeout=300)
        return self.process.returncode, out

    def until_all_sleep(self) -> None:
        until(lambda: all((self.folder / f"asleep{rank}").exists() for rank in range(2)))

    @property
    def ranks_done(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("done*"))

    @property
    def pids(self) -> list[int]:
        return [int(path.name[3:]) for path in self.folder.glob("pid*")]

    def nobody_lives(self) -> bool:
        """Of all that was started: agents, ranks, their children, watchdogs."""
        return not any(self._started(path) for path in Path("/proc").iterdir() if path.name.isdecimal())

    def _started(self, process: Path) -> bool:
        try:
            return f"{MARKER}={self._token}".encode() in (process / "environ").read_bytes()
        except OSError:
            return False


def end_all(made: list[Launched]) -> None:
    for one in made:
        for pid in [one.process.pid, *descendants(one.process.pid)] if one.process.poll() is None else []:
            os.kill(pid, signal.SIGKILL)
