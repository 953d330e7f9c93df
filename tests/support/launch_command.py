"""`megatron-resume launch`, started as a person does or forked, and all the processes that come of it."""

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

from . import PROGRAMS, ROOT, TESTS
from .pool import Pool, Program
from .programs.forked_launch import COMM
from .waiting import PATIENCE_S

MARKER = "TEST_LAUNCH"  # in the environment of all that a launch starts


class LaunchCommand:
    """`megatron-resume launch ARGS...`.

    From a lane of `kind` of a pool all of it is forked: what runs is the code of torchrun and of the ranks, but none of
    these processes imports it again.
    """

    def __init__(
        self, *argv: str, output: Path, environ: Mapping[str, str], pool: Pool | None = None, kind: str = "torch"
    ) -> None:
        self._token, self._output = uuid.uuid4().hex[:15], output  # as much as the name of a process may have
        marked, command = {**environ, MARKER: self._token, COMM: self._token}, ("launch", *argv)
        self._process: subprocess.Popen[bytes] | Program
        with output.open("wb") as out:
            if pool is None:
                started = [sys.executable, "-m", "megatron_resume", *command]
                self._process = subprocess.Popen(started, cwd=ROOT, env=marked, stdout=out, stderr=subprocess.STDOUT)
            else:
                marked["PYTHONPATH"] = f"{TESTS}:{marked.get('PYTHONPATH', '')}"
                script = PROGRAMS / "forked_launch.py"
                self._process = Program(pool, script, *command, environ=marked, cwd=ROOT, output=out, kind=kind)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def said(self) -> str:
        return self._output.read_text(errors="replace")

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self, within_s: float = PATIENCE_S) -> int:
        """Its exit code."""
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"waited {within_s} s for the end of `launch`, which said:\n{self.said[-6000:]}"
            ) from None

    def living(self) -> list[int]:
        """All that it started and that lives: agents, ranks, their children, watchdogs."""
        return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal() and self._started(path)]

    def _started(self, process: Path) -> bool:
        try:
            name, state = (process / "stat").read_text(errors="replace").partition(" (")[2].rsplit(")", 1)
            environ = (process / "environ").read_bytes()
        except OSError:
            return False
        is_ours = name == self._token or f"{MARKER}={self._token}".encode() in environ
        return is_ours and state.split()[0] not in "ZX"

    def close(self) -> None:
        """End what a failed test left."""
        for pid in self.living():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.end()
        if isinstance(self._process, Program):
            self._process.close()
