"""The process from which jobs and programs are forked: started once for all workers of a test run."""

import fcntl
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from . import PROGRAMS
from .waiting import PATIENCE_S

MEGATRON, TORCH, PLAIN = "megatron", "torch", "plain"


class Pool:
    """A job server below `folder`, which ends with the process `owner`; see programs/job_server.py."""

    def __init__(self, folder: Path, owner: int, environment: Mapping[str, str] | None = None):
        self.folder = folder
        with open(folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of several workers the first one starts it
            if not (folder / "pid").exists():
                self._start(owner, environment if environment is not None else os.environ)

    def _start(self, owner: int, environment: Mapping[str, str]) -> None:
        ours = ("MEGATRON_RESUME_", "PYTEST_")
        environ = {name: value for name, value in environment.items() if not name.startswith(ours)}
        command = [sys.executable, str(PROGRAMS / "job_server.py"), str(self.folder), str(owner)]
        with open(self.folder / "server.log", "w") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environ
            )
        (self.folder / "pid").write_text(str(self._process.pid))

    def close(self) -> None:
        """End what was started here, and all that was forked from it."""
        self._process.kill()
        self._process.wait()

    def connect(self, kind: str = MEGATRON) -> "Lane":
        """A lane of its own, in which `kind` was imported."""
        path, pid = self.folder / kind, int((self.folder / "pid").read_text())
        deadline = time.monotonic() + PATIENCE_S
        while not path.exists():
            said = (self.folder / "server.log").read_text(errors="replace")[-3000:]
            assert _runs(pid), f"the job server ended before it had imported what was needed:\n{said}"
            assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for the imports of the job server"
            time.sleep(0.02)
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(path))
        return Lane(connection, self.folder / "server.log")


def _runs(pid: int) -> bool:
    """Also where nobody has collected it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Lane:
    """A connection to the job server, which does one thing after the other."""

    def __init__(self, connection: socket.socket, log: Path):
        self._connection, self._log = connection, log
        self._received = b""
        self.pid: int = self.read()["lane"]  # the process whose children lead the jobs, each in a session of its own

    def ask(self, request: Mapping[str, Any], descriptors: tuple[int, ...] = ()) -> dict[str, Any]:
        """Send one request and wait for its first answer."""
        text = json.dumps(request).encode() + b"\n"
        if descriptors:
            text = text[socket.send_fds(self._connection, [text], descriptors) :]
        self._connection.sendall(text)
        return self.read()

    def read(self) -> dict[str, Any]:
        while b"\n" not in self._received:
            part = self._connection.recv(1 << 16)
            assert part, f"the job server ended:\n{self._log.read_text(errors='replace')[-3000:]}"
            self._received += part
        line, _, self._received = self._received.partition(b"\n")
        record: dict[str, Any] = json.loads(line)
        assert "error" not in record, record
        return record

    def has_answered(self, within_s: float) -> bool:
        """Whether there is something to read before that time is over."""
        return b"\n" in self._received or bool(select.select([self._connection], [], [], within_s)[0])

    def close(self) -> None:
        self._connection.close()


class Program:
    """A Python program in a session of its own: what subprocess.Popen gives, but forked, so without its imports.

    `stdout` is a pipe; `stderr` goes where that of the test goes unless it is given. A file that is given as `output`
    gets both.
    """

    def __init__(
        self,
        pool: Pool,
        script: Path,
        *argv: str,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stderr: IO[Any] | None = None,
        output: IO[Any] | None = None,
        kind: str = TORCH,
    ):
        reader, writer = os.pipe()
        self.stdout = io.TextIOWrapper(io.FileIO(reader), errors="replace")
        self._lane = pool.connect(kind)
        self._code: int | None = None
        request = {
            "program": str(script),
            "argv": list(argv),
            "environ": dict(os.environ if environ is None else environ),
            "cwd": str(cwd or Path.cwd()),
        }
        with open(os.devnull) as nothing:
            errors = 2 if stderr is None else stderr.fileno()
            outputs = (writer, errors) if output is None else (output.fileno(), output.fileno())
            self.pid: int = self._lane.ask(request, (nothing.fileno(), *outputs))["pid"]
        os.close(writer)

    def send_signal(self, number: int) -> None:
        if self._code is None:
            os.kill(self.pid, number)  # it is not waited for before the lane is closed, so the number is its own

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        if self._code is None and self._lane.has_answered(0):
            self._code = self._lane.read()["code"]
        return self._code

    def wait(self, timeout: float = PATIENCE_S) -> int:
        if self._code is None:
            assert self._lane.has_answered(timeout), f"waited {timeout} s for the end of process {self.pid}"
            self._code = self._lane.read()["code"]
        return self._code

    def close(self) -> None:
        """End it, if it still runs."""
        self.kill()
        self.wait()
        self.stdout.close()
        self._lane.close()


def run(pool: Pool, script: Path, *argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """As subprocess.run(..., capture_output=True, text=True) of a Python program."""
    with open(os.memfd_create("stderr"), "w+", errors="replace") as stderr:
        program = Program(pool, script, *argv, stderr=stderr, **options)
        try:
            out = program.stdout.read()
            code = program.wait()
            stderr.seek(0)
            return subprocess.CompletedProcess([str(script), *argv], code, out, stderr.read())
        finally:
            program.close()
