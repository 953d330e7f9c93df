"""The stacks of a rank that can tell nothing itself any more, in `stacks/rank_0.txt` of its life."""

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

from . import kernel

_SETTLED_S = 0.05  # without a new byte
_DUMP_S = 1.0  # for a process that runs; one that is stopped writes nothing
_NATIVE_S = 30.0
_MAX_BYTES = 16 << 20


def stacks_of(pid: int, dump_signal: int, descriptor: int) -> str:
    """What every thread of process `pid` does: in Python, in the kernel, and in native code where py-spy is there.

    Args:
        dump_signal: makes faulthandler write all threads to `descriptor`, without the interpreter's lock.
    """
    parts = []
    if (found := kernel.state(pid)) in kernel.HALTED:
        parts.append(f"The process is {found}, and can run no handler.\n")
    else:
        parts.append(_python_stacks(pid, dump_signal, descriptor))
    parts.append("\n".join(kernel.threads(pid)) + "\n")
    if (py_spy := shutil.which("py-spy")) is not None:
        parts.append(_native_stacks(py_spy, pid))
    return "\n".join(parts)


def _python_stacks(pid: int, dump_signal: int, descriptor: int) -> str:
    start = size = os.fstat(descriptor).st_size
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, dump_signal)
    deadline = time.monotonic() + _DUMP_S
    grown = time.monotonic()
    while time.monotonic() < deadline and not (size > start and time.monotonic() - grown > _SETTLED_S):
        time.sleep(_SETTLED_S / 5)
        if (now := os.fstat(descriptor).st_size) > size:
            size, grown = now, time.monotonic()
    text = os.pread(descriptor, min(size - start, _MAX_BYTES), start).decode(errors="replace")
    return text or "It took no signal within a second.\n"


def _native_stacks(py_spy: str, pid: int) -> str:
    command = [py_spy, "dump", "--native", "--nonblocking", "--pid", str(pid)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=_NATIVE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"py-spy: {error}\n"
    return ended.stdout or f"py-spy: {ended.stderr}"


def write_stacks(folder: Path, rank: int, head: str, stacks: str) -> None:
    """Store them in `folder`, which exists, below one line of facts. Raises OSError where that cannot be."""
    new = folder / f".rank_{rank}"
    new.write_text(f"{head}\n\n{stacks}", encoding="utf-8")
    new.replace(folder / f"rank_{rank}.txt")


def heads(folder: Path) -> list[str]:
    """The lines of facts of all ranks."""
    found = []
    for path in sorted(folder.glob("rank_*.txt")):
        with contextlib.suppress(OSError), path.open(encoding="utf-8", errors="replace") as file:
            found.append(file.readline(1_000).rstrip("\n"))
    return found
