"""The stacks of a rank that can tell nothing itself any more, in `stacks/rank_0.txt` of its life."""

import contextlib
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from ..checkpoint.atomic import make_folder, replace
from ..checkpoint.plain_files import folder_below, open_file
from ..shown import shown_in_line
from . import kernel

_SETTLED_S = 0.05  # without a new byte
_DUMP_S = 1.0  # for a process that runs; one that is stopped writes nothing
_NATIVE_S = 30.0
_MAX_BYTES = 16 << 20
_MAX_HEAD = 1_000


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
    return _without_command(ended.stdout or f"py-spy: {ended.stderr}", pid)


def _without_command(text: str, pid: int) -> str:
    """py-spy begins with the command line, which may hold secrets and have several lines."""
    head = rf"\AProcess {pid}:.*?(?=^Python v|^Thread |\Z)"
    return re.sub(head, f"Process {pid}\n", text, flags=re.DOTALL | re.MULTILINE)


class Stacks(NamedTuple):
    """Where the stacks of a life are kept: in `folder`, below which others may write as far as to `base`."""

    base: Path
    folder: Path

    def begin(self) -> None:
        """Make the folder, which tells other ranks that one hangs. Raises OSError where that cannot be."""
        make_folder(self.folder, below=self.base)

    def write(self, rank: int, head: str, stacks: str) -> None:
        """Store them below one line of facts. Raises OSError where that cannot be."""
        text = f"{head}\n\n{stacks}".encode("utf-8", "backslashreplace")
        replace(self.folder / _file(rank), text, below=self.base)

    def heads(self, num_ranks: int) -> list[str]:
        """The lines of facts of all ranks."""
        found = []
        with contextlib.suppress(OSError), folder_below(self.base, self.folder) as folder:
            for name in sorted({_file(rank) for rank in range(num_ranks)}.intersection(os.listdir(folder))):
                with contextlib.suppress(OSError), open_file(name, os.O_RDONLY, "rb", folder) as file:
                    head = file.readline(_MAX_HEAD).decode("utf-8", "replace").rstrip("\n")
                    found.append(shown_in_line(head))
        return found


def _file(rank: int) -> str:
    return f"rank_{rank}.txt"
