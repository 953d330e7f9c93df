"""Megatron's RL ends by os._exit(0), whatever the run came to, before anything that waits for the end was called.

From 0.17 on `rl_inference_interface_shutdown` does so, since threads of its inference server keep a process from
leaving. Commits that are on their way would be lost, and a job that SIGTERM stopped would seem to be done.
"""

import multiprocessing.util
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from ..hooks import AnyFunction
from ..watch import marks
from . import saving, session, training
from .at_end import PRIORITY


def wrap_shutdown(original: AnyFunction) -> AnyFunction:
    def rl_inference_interface_shutdown(*args: Any, **kwargs: Any) -> Any:
        if session.current() is None:
            return original(*args, **kwargs)
        with _exits_as_python():
            return original(*args, **kwargs)

    return rl_inference_interface_shutdown


@contextmanager
def _exits_as_python() -> Iterator[None]:
    """Meanwhile os._exit, on the main thread, does first what Python does at its end for us. Call on every rank."""
    exit_now, pid = os._exit, os.getpid()

    def leave(status: int) -> NoReturn:
        if os.getpid() == pid and threading.current_thread() is threading.main_thread():
            os._exit = exit_now
            status = _end(status)
        exit_now(status)

    os._exit = leave
    try:
        yield
    finally:
        os._exit = exit_now


def _end(status: int) -> int:
    """The exit code that sys.exit would have given, once commits are done and the end is recorded."""
    try:
        sys.exit(status)  # which may have been replaced, so that the code tells of SIGTERM
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    saving.warn_of_unfinished()
    training.warn_of_no_save()
    multiprocessing.util._run_finalizers(PRIORITY)  # type: ignore[attr-defined]  # ours; others' may wait for threads
    marks.leaves(status)
    if not status:
        saving.end_if_unfinished()
    sys.stdout.flush()
    sys.stderr.flush()
    return status
