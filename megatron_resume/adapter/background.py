"""One thread for what no rank has to wait for."""

import functools
import logging
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor

logger = logging.getLogger("megatron_resume")


def submit(action: Callable[[], None]) -> None:
    """Run `action` in the background, in order; leaving the process waits for it."""
    _thread().submit(_run, action)


@functools.cache
def _thread() -> Executor:
    return ThreadPoolExecutor(1, thread_name_prefix="megatron_resume background")


def _run(action: Callable[[], None]) -> None:
    try:
        action()
    except Exception:  # nobody asks the future
        logger.exception("something failed in the background; training goes on")
