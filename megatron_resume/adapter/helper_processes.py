"""Helper processes of a rank (checkpoint workers, the process of their results, data workers) outlive a SIGTERM.

torchrun sends it to the whole session of a rank, which needs them until its last save is done. (2026-11, Megatron 0.19:
without this that save failed, since the process of its result queue was gone.)
"""

import contextlib
import functools
import multiprocessing
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess

from ..watch import kernel
from .at_end import at_end


@contextlib.contextmanager
def that_outlive_sigterm() -> Iterator[None]:
    """Processes that are started inside the `with` block, and theirs, take no SIGTERM. In the main thread."""
    _prepare()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # which a new process inherits
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@functools.cache
def _prepare() -> None:
    resource_tracker.ensure_running()  # the first process that is spawned would start it, and it unblocks the signal
    at_end(_end)


def _outliving() -> list[BaseProcess]:
    """Asked for when they are to end: each save would be slower by what it takes to keep a list."""
    return [one for one in multiprocessing.active_children() if one.pid and kernel.blocks(one.pid, signal.SIGTERM)]


def _end() -> None:
    """Python ends daemons with SIGTERM and waits for them, which would be for ever. The others it asks to end."""
    for process in _outliving():
        if process.daemon:
            process.kill()


def kill_all() -> None:
    """Where this process ends without Python's doing."""
    for process in _outliving():
        process.kill()
