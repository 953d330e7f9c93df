"""All processes below this one, also those whose parents died, and their end. Linux only."""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_POLL_S = 0.02
_LAST_S = 2.0  # for those that see the others end


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


def command(pid: int) -> list[str]:
    """What process `pid` was started with; nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return []


def end_descendants(*, grace_s: float, last: Callable[[int], bool] = lambda pid: False) -> None:
    """SIGTERM to all descendants of this process, which adopts orphans, and then SIGKILL; returns when none is left.

    The caller has no children of its own beside them. Those that are `last` see the end of the others: they are killed
    two seconds later, if they are still there.
    """
    if grace_s > 0:
        _signal_all(signal.SIGTERM, last)
        _signal_all(signal.SIGCONT, last)  # one that is stopped would take SIGTERM only then
    deadline = time.monotonic() + grace_s
    while _has_children():  # /proc is no snapshot: one whose parent just died may not be found there
        now = time.monotonic()
        if now >= deadline:
            _signal_all(signal.SIGKILL, last if now < deadline + _LAST_S else None)
        time.sleep(_POLL_S)


def _signal_all(number: int, but: Callable[[int], bool] | None) -> None:
    for pid in descendants(os.getpid()):
        if but is None or not but(pid):
            _signal(pid, number)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


class Abandoned:
    """What processes below this one left behind when they died: it is ended too, and keeps no memory and no GPU.

    A launcher starts each rank as the leader of a session. Who is still in it when the leader is gone has nobody left
    to work for; who made a session of its own wants to outlive its parent, and may.
    """

    def __init__(self, by_itself_s: float = 5.0) -> None:
        self._by_itself_s = by_itself_s  # for them to end
        self._since: dict[int, float] = {}

    def end(self, *, but: int) -> None:
        """End those that were seen for some seconds; `but` is a child that the caller started itself. Call often."""
        for pid in _children():
            if pid == but or os.waitpid(pid, os.WNOHANG)[0]:
                continue
            if _is_in_a_lost_session(pid):
                since = self._since.setdefault(pid, time.monotonic())
                if time.monotonic() - since > self._by_itself_s:
                    for one in [pid, *descendants(pid)]:
                        _signal(one, signal.SIGKILL)


def _children() -> list[int]:
    """Of this process, which has one thread."""
    me = os.getpid()
    try:
        return [int(pid) for pid in Path(f"/proc/{me}/task/{me}/children").read_text().split()]
    except OSError:  # a kernel without CONFIG_PROC_CHILDREN
        return []


def _is_in_a_lost_session(pid: int) -> bool:
    try:
        leader = os.getsid(pid)
    except ProcessLookupError:
        return False
    return leader not in (pid, os.getsid(0)) and _parent(Path(f"/proc/{leader}")) is None


def _has_children() -> bool:
    """Collects those that ended; whoever lives below this process is a child of it, or below one."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True
