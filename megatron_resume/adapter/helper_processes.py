"""Megatron's checkpoint workers, and the process that holds their results, outlive a launcher's SIGTERM.

torchrun sends it to the whole session of a rank, which needs them for the save that follows. (2026-11, Megatron 0.19:
without this a rank's last save failed, since the process of its result queue was gone.)
"""

import contextlib
import functools
import multiprocessing
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess

from .at_end import at_end

_outliving: set[BaseProcess] = set()


@contextlib.contextmanager
def that_outlive_sigterm() -> Iterator[None]:
    """Processes that are started inside the `with` block, and theirs, take no SIGTERM. In the main thread."""
    before = set(multiprocessing.active_children())
    resource_tracker.ensure_running()  # the first process that is spawned would start it, and it unblocks the signal
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # which a new process inherits
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _outliving.update(set(multiprocessing.active_children()) - before)
        _end_them_at_exit()


@functools.cache
def _end_them_at_exit() -> None:
    at_end(_end)


def _end() -> None:
    """Python ends daemons with SIGTERM and waits for them, which would be for ever. The others it asks to end."""
    for process in _outliving:
        if process.daemon and process.is_alive():
            process.kill()


def kill_all() -> None:
    """Where this process ends without Python's doing."""
    for process in _outliving:
        if process.is_alive():
            process.kill()
