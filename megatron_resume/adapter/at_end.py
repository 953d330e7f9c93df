"""Calling something when this process ends of its own will."""

import atexit
import multiprocessing.util
from collections.abc import Callable

PRIORITY = 100  # of multiprocessing's finalizers; its own have less


def at_end(action: Callable[[], None]) -> None:
    """Call `action`, which must bear a second call, when this process ends; what came last is called first.

    Processes that Python's multiprocessing made end without atexit.
    """
    atexit.register(action)
    multiprocessing.util.Finalize(None, action, exitpriority=PRIORITY)
