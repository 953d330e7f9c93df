"""Files of a tree, changed all together: all are written and recorded, or all are as they were."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..checkpoint import atomic
from ..errors import ConfigError, MismatchError
from . import record
from .record import Patched
from .tree import read_inside


class Change(NamedTuple):
    """One file that is to be written."""

    path: PurePosixPath
    old: bytes
    new: bytes


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Keep others from changing the tree meanwhile, where the file system can.

    Raises:
        ConfigError: Somebody is at it.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno == errno.EWOULDBLOCK:
            os.close(descriptor)
            raise ConfigError(f"{root} is being patched by another process; type the command again after it") from error
    try:
        yield
    finally:
        os.close(descriptor)


def write(
    root: Path,
    changes: list[Change],
    *,
    first: dict[PurePosixPath, Patched],
    last: dict[PurePosixPath, Patched],
    on_failure: dict[PurePosixPath, Patched],
) -> None:
    """Write the record `first`, all `changes`, and the record `last`; or put all back, and `on_failure`."""
    done: list[Change] = []
    try:
        _check_writable(root, changes)
        if first != on_failure:
            record.write(root, first)
        for change in changes:
            _replace(root, change.path, change.old, change.new)
            done.append(change)
        if last != first:
            record.write(root, last)
    except (OSError, MismatchError) as error:
        for change in reversed(done):
            _replace(root, change.path, change.new, change.old)
        with suppress(OSError):
            record.write(root, on_failure)
        if isinstance(error, MismatchError):
            raise
        where = error.filename2 or error.filename or root
        raise ConfigError(f"{where} cannot be written: {error.strerror}; nothing was changed") from error


def _check_writable(root: Path, changes: list[Change]) -> None:
    """Raises OSError before anything is changed where a folder is read-only; files may be, for they are replaced."""
    for folder in {root, *((root / change.path).parent for change in changes)}:
        if changes and not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
            raise PermissionError(13, "the folder is read-only", str(folder))


def _replace(root: Path, path: PurePosixPath, old: bytes, new: bytes) -> None:
    """Put `new` in the place of `old`, with its mode and owner."""
    whole = root / path
    if read_inside(root, path) != old:
        raise MismatchError(
            f"{whole} was changed by somebody else meanwhile; nothing was changed, type the command again"
        )
    found = whole.stat()
    with atomic.replacing(whole, below=root) as file:
        file.write(new)
        with suppress(PermissionError):  # of another user: then it becomes ours
            os.fchown(file.fileno(), found.st_uid, found.st_gid)
        os.fchmod(file.fileno(), stat.S_IMODE(found.st_mode))
