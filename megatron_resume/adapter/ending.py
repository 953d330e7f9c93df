"""Where our errors meet the user's script: a message, and the exit code that tells a launcher the truth."""

import atexit
import logging
import multiprocessing.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import ResumeError
from . import ranks

logger = logging.getLogger("megatron_resume")


@contextmanager
def truthful_end() -> Iterator[None]:
    """Turn a ResumeError into its message and SystemExit with its code, without a traceback."""
    try:
        yield
    except ResumeError as error:
        logger.error("rank %d: %s", ranks.rank(), error)
        raise SystemExit(error.exit_code) from error


def at_end(action: Callable[[], None]) -> None:
    """Call `action`, which must bear a second call, when this process ends of its own will.

    Processes that Python's multiprocessing made end without atexit.
    """
    atexit.register(action)
    multiprocessing.util.Finalize(None, action, exitpriority=100)
