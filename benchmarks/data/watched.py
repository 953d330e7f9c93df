"""A measurement in a process of its own, ended when it goes beyond its limits."""

import json
import subprocess
import sys
import time
from pathlib import Path

from limits import Limits
from measured import Measured, NotRun, Outcome

HERE = Path(__file__).resolve().parent
LOOK_EVERY_S = 0.1


class Failed(Exception):
    """The process ended with an error, which stands on standard error."""


def watched(name: str, size: int, limits: Limits) -> Outcome:
    """Measure the order `name`. Raises Failed."""
    command = [sys.executable, "-W", "ignore", str(HERE / "measure.py"), name, str(size)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        beyond = _watch(process, limits)
        if beyond:
            process.kill()
        out, err = process.communicate()
    if beyond:
        return NotRun(f"ended: {beyond}")
    if process.returncode:
        raise Failed(f"{name} at {size:,} ended with {process.returncode}:\n{err}")
    return Measured(**json.loads(out.splitlines()[-1]))


def _watch(process: "subprocess.Popen[str]", limits: Limits) -> str | None:
    """Wait for its end; or say which limit it went beyond."""
    deadline = time.monotonic() + limits.seconds
    while process.poll() is None:
        if time.monotonic() > deadline:
            return f"took more than {limits.seconds:.0f} s"
        if _resident(process.pid) > limits.bytes:
            return f"needed more than {limits.bytes / 1e9:.0f} GB"
        time.sleep(LOOK_EVERY_S)
    return None


def _resident(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        pass
    return 0
