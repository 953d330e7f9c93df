"""What a rank leaves behind when it dies is ended: nobody is left for whom it would work, and it holds memory.

A launcher starts each rank as the leader of a session, in which are the processes that the rank starts, such as
Megatron's checkpoint workers and the process of their results (0.7 GB). Linux gives the number of a session to nobody
else as long as somebody is in it: so whoever is in that of a dead rank was started by it, or below it. Who made a
session of its own wants to outlive the rank, and may.
"""

import contextlib
import os
import signal
import time
from pathlib import Path

from ..processes import command
from . import kernel

_TRACKER_S = 2.0
_GIVE_UP_S = 60.0  # where the kernel cannot end one, or is too old (before 5.3) to name it safely
_TRACKER = "from multiprocessing.resource_tracker import main"
_POLL_S = 0.1


def leads_a_session(pid: int) -> bool:
    """Whether process `pid` does, so that whoever is left in it can be known by it."""
    return _session(pid) == pid


def end_session(leader: int, by_itself_s: float) -> None:
    """End all that is left in the session that process `leader` led, which was ended; returns when nobody is.

    Before that they may end by themselves for `by_itself_s` seconds, and the leader may not be collected yet.
    Python's resource tracker goes last: it ends by itself when the others have, and removes what they shared.
    """
    deadline = time.monotonic() + by_itself_s
    while _lives(leader) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    while not _lives(leader) and (left := _left(leader)):
        late_s = time.monotonic() - deadline
        if late_s > _GIVE_UP_S:
            return
        for pid in left:
            if late_s > (_TRACKER_S if any(_TRACKER in word for word in command(pid)) else 0):
                _kill(pid, leader)
        time.sleep(_POLL_S)


def _left(leader: int) -> list[int]:
    """Of that session, without those that ended and wait to be collected."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [pid for pid in pids if _session(pid) == leader and _lives(pid)]


def _lives(pid: int) -> bool:
    return kernel.state(pid) not in ("ended", "gone")


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _kill(pid: int, leader: int) -> None:
    """Through a descriptor: the number may be another's by now, and that one is asked for its session again."""
    with contextlib.suppress(OSError):
        descriptor = os.pidfd_open(pid)
        try:
            if _session(pid) == leader and not _lives(leader):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)
