"""Calling something when this process ends of its own will."""

import atexit
import multiprocessing
import multiprocessing.util
from collections.abc import Callable

PRIORITY = 100  # of multiprocessing's finalizers; its own have less
_LAST = 1


def at_end(action: Callable[[], None]) -> None:
    """Call `action`, which must bear a second call, when this process ends; what came last is called first.

    Processes that Python's multiprocessing made end without atexit.
    """
    atexit.register(action)
    multiprocessing.util.Finalize(None, action, exitpriority=PRIORITY)


def at_end_of_helper(action: Callable[[], None]) -> None:
    """Call `action` after all of these, if this is a process that Python's multiprocessing made."""
    if multiprocessing.parent_process() is not None:
        multiprocessing.util.Finalize(None, action, exitpriority=_LAST)
