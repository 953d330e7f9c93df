"""Where our errors meet the user's script: a message, and the exit code that tells a launcher the truth."""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..checkpoint import storage
from ..checkpoint.plain_files import NotPlainError
from ..errors import ConfigError, DamagedError, ResumeError, UnreadableError
from ..watch import marks
from . import error_file, life, ranks

logger = logging.getLogger("megatron_resume")


@contextmanager
def truthful_end() -> Iterator[None]:
    """Turn a ResumeError into its message and SystemExit with its code, without a traceback."""
    try:
        yield
    except ResumeError as error:
        logger.error("rank %d: %s", ranks.rank(), error)
        error_file.write(error)
        life.ends_by(error)
        marks.fails_by(error)
        raise SystemExit(error.exit_code) from error


@contextmanager
def sys_exit_is_a_failure(args: Any) -> Iterator[None]:
    """Megatron ends failed loads with a bare sys.exit(), which a launcher takes for success."""
    try:
        yield
    except SystemExit as end:
        if end.code in (None, 0):
            raise DamagedError(f"Megatron gave up loading from {args.load}; its reason stands above") from end
        raise


@contextmanager
def naming_the_path(root: Path) -> Iterator[None]:
    """Turn an OSError at a start into an error that says what to do about it."""
    try:
        yield
    except OSError as error:
        where = error.filename2 or error.filename or root
        if isinstance(error, NotPlainError):
            raise ConfigError(f"start refused: {where}: {error.strerror}") from error
        if storage.is_silence(error):
            raise UnreadableError(f"start refused: {where}: {error.strerror}") from error
        if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK) and error.filename2:
            needed = "this file system lacks hard or symbolic links; name a folder on one that has both"
        else:
            needed = "every node must be able to read and write data_checkpoint_path and each --save"
        raise ConfigError(f"start refused: {where}: {error.strerror}; {needed}") from error
