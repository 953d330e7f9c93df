"""Open files and folders that others may have put there: plain ones only, through no link, waiting for nobody."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LINK = "it is a symbolic link, by which this job would write elsewhere; put the folder itself there"


class NotPlainError(OSError):
    """A folder, link, FIFO, socket or device stands where a plain file is due, or something else than a folder."""


def open_plain(path: Path) -> BinaryIO:
    """The plain file `path`, for reading. Opening a FIFO would wait for a writer, and a link leads elsewhere.

    Raises:
        OSError: There is none, or something else; ELOOP for a symbolic link.
    """
    return open_file(path, os.O_RDONLY, "rb")


def open_file(path: Path | str, flags: int, mode: str, folder: int | None = None) -> BinaryIO:
    """The same, opened with `flags`; with them it may be made, too. `path` is one in `folder`, if that is given."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket; or a FIFO that nobody reads, opened for writing
            raise _not_plain(path) from None
        raise
    try:
        check_plain(os.fstat(descriptor), path)
        return cast(BinaryIO, open(descriptor, mode, buffering=-1 if mode == "rb" else 0))
    except BaseException:
        os.close(descriptor)
        raise


def check_plain(found: os.stat_result, path: Path | str) -> None:
    """Raises NotPlainError unless `found`, not followed through links, is of a plain file."""
    if not stat.S_ISREG(found.st_mode):
        raise _not_plain(path)


def _not_plain(path: Path | str) -> NotPlainError:
    return NotPlainError(errno.EINVAL, "it is no plain file", str(path))


@contextmanager
def folder_below(base: Path, path: Path) -> Iterator[int]:
    """A descriptor of the folder `path`, which is `base` or lies below it; from `base` on no link is followed.

    What is done to names in it (with `dir_fd`) cannot be led elsewhere by somebody who may write into a folder on the
    way. An OSError of that names the whole path.

    Raises:
        OSError: It is missing; NotPlainError if something else than a folder stands on the way.
    """
    descriptor, reached = os.open(base, _FOLDER), base
    try:
        for name in path.relative_to(base).parts:
            reached /= name
            above, descriptor = descriptor, _into(descriptor, reached)
            os.close(above)
        yield descriptor
    except OSError as error:
        error.filename = _whole(path, error.filename)
        if error.filename2 is not None:  # set, it would be printed
            error.filename2 = _whole(path, error.filename2)
        raise
    finally:
        os.close(descriptor)


def _into(above: int, path: Path) -> int:
    try:
        return os.open(path.name, _FOLDER | os.O_NOFOLLOW, dir_fd=above)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        is_link = stat.S_ISLNK(os.stat(path.name, dir_fd=above, follow_symlinks=False).st_mode)
        raise NotPlainError(error.errno, _LINK if is_link else "it is no folder; remove it", str(path)) from None


def _whole(folder: Path, name: str | bytes | int | None) -> str | bytes | int | None:
    return os.path.join(folder, name) if isinstance(name, str) else name


def make_private(path: Path) -> None:
    """Make the folder `path` for this user alone, or see that it is: others cannot plant a thing there.

    Raises:
        OSError: It cannot be made; NotPlainError if it belongs to another user, or is no folder.
    """
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
    with folder_below(path.parent, path) as folder:
        found = os.fstat(folder)
        if found.st_uid != os.geteuid():
            raise NotPlainError(errno.EPERM, "it belongs to another user", str(path))
        if stat.S_IMODE(found.st_mode) & 0o077:
            os.fchmod(folder, 0o700)
