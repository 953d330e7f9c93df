"""Open files that others may have put there: plain ones only, and without waiting for anybody."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


class NotPlainError(OSError):
    """A folder, FIFO, socket or device stands where a plain file is due."""


def open_plain(path: Path) -> BinaryIO:
    """The plain file `path`, for reading. Opening a FIFO would wait for a writer, and a link leads elsewhere.

    Raises:
        OSError: There is none, or something else; ELOOP for a symbolic link.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        check_plain(os.fstat(descriptor), path)
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def check_plain(found: os.stat_result, path: Path) -> None:
    """Raises NotPlainError unless `found`, not followed through links, is of a plain file."""
    if not stat.S_ISREG(found.st_mode):
        raise NotPlainError(errno.EINVAL, "it is no plain file", str(path))
