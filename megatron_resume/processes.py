"""All processes below this one, also those whose parents died, and their end. Linux only."""

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_POLL_S = 0.02


def adopt_orphans() -> None:
    """From now on a descendant whose parent dies becomes a child of this process, and of nobody else."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """This process is killed when its parent, process `parent`, is gone, or at once if it is gone already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def descendants(pid: int) -> list[int]:
    """Processes below `pid`, parents before their children; without those that ended and wait to be collected."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (parent := _parent(entry)) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    found, at = [pid], 0
    while at < len(found):
        found += children.get(found[at], [])
        at += 1
    return found[1:]


def _parent(entry: Path) -> int | None:
    """None where it is gone, or ended and not collected."""
    try:
        state, parent, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(parent)


def end_descendants(*, grace_s: float) -> None:
    """SIGTERM to all descendants of this process, which adopts orphans, and then SIGKILL; returns when none is left.

    The caller has no children of its own beside them.
    """
    if grace_s > 0:
        _signal_all(signal.SIGTERM)
        _signal_all(signal.SIGCONT)  # one that is stopped would take SIGTERM only then
    deadline = time.monotonic() + grace_s
    while _has_children():  # /proc is no snapshot: one whose parent just died may not be found there
        if time.monotonic() >= deadline:
            _signal_all(signal.SIGKILL)
        time.sleep(_POLL_S)


def _signal_all(number: int) -> None:
    for pid in descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _has_children() -> bool:
    """Collects those that ended; whoever lives below this process is a child of it, or below one."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True
