"""Where our errors meet the user's script: a message, and the exit code that tells a launcher the truth."""

import logging
from collections.abc import Iterator
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
