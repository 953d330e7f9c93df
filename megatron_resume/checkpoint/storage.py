"""Ask the storage, and know what its errors mean: damage, missing rights, or that it does not answer now.

    other bytes, ENOENT, EBADMSG, EUCLEAN and their like   damage: what was there is gone
    EACCES, EPERM                                          78: somebody has to give this user the right
    ESTALE, EIO, ETIMEDOUT and all others                  asked again for a while; then 203

What cannot be read may be whole, so nothing is decided without it. Every reader of the package asks here.
"""

import errno
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NoReturn, TypeVar

from ..errors import DeniedError, UnreadableError
from .plain_files import NotPlainError

logger = logging.getLogger("megatron_resume")

T = TypeVar("T")
AnyPath = str | Path

# Nothing is there, or something else is, or the file system knows that it lost the content (ext4 and XFS say EBADMSG
# or EUCLEAN; where one says EIO, nobody can tell that from a network that fails).
_GONE = errno.ENOENT, errno.ENOTDIR, errno.EBADMSG, errno.EUCLEAN
_ELSE = errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG
_DAMAGE = frozenset([*_GONE, *_ELSE])
_DENIED = frozenset([errno.EACCES, errno.EPERM])
# Of these writes fail for a reason that lasts: the start is to say what is needed.
_FULL = errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS
_UNABLE = errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, errno.EEXIST, errno.ENOTEMPTY
_LASTING = frozenset([*_FULL, *_UNABLE])
_NUMBER = r"\[Errno ([0-9]{1,4})\]"
_POLL_S = 0.1, 2.0  # the first pause, and the longest


class _Patience:
    """How long to ask again, and the paths for which that was in vain."""

    def __init__(self, wait_s: float):
        self.wait_s = self.left_s = wait_s
        self.in_vain: set[str] = set()


_patience: ContextVar[_Patience | None] = ContextVar("patience", default=None)  # of this thread


def be_patient(wait_s: float) -> None:
    """From now on this thread asks a storage that does not answer again, for `wait_s` seconds: for starts."""
    _patience.set(_Patience(wait_s))


@contextmanager
def patience(wait_s: float) -> Iterator[None]:
    """The same for a block; with 0 the first answer holds, as where a person or a training step waits."""
    token = _patience.set(_Patience(wait_s))
    try:
        yield
    finally:
        _patience.reset(token)


def ask(path: AnyPath, question: Callable[[], T]) -> T:
    """What `question` returns, which reads `path` and may be put again.

    Raises:
        OSError: It is damaged: missing, or something else than was asked for.
        DeniedError: This user may not read it.
        UnreadableError: The storage did not answer.
    """
    try:
        return question()
    except OSError as error:
        if is_damage(error):
            raise
        if error.errno in _DENIED:
            raise denied(path, error) from error
        return _ask_again(path, question, error)


def is_damage(error: OSError) -> bool:
    """Whether the error tells that what was there is gone, rather than that it cannot be read now."""
    return error.errno in _DAMAGE or isinstance(error, NotPlainError)


def is_silence(error: OSError) -> bool:
    """Whether the storage failed, also while writing, in a way that may pass."""
    return not is_damage(error) and error.errno not in _DENIED | _LASTING


def tells_of_silence(message: str) -> bool:
    """Whether an error that somebody else recorded as text was one of the storage or of rights, not of the content."""
    numbers = map(int, re.findall(_NUMBER, message))
    return any(number not in _DAMAGE | _LASTING for number in numbers)


def denied(path: AnyPath, error: OSError) -> DeniedError:
    return DeniedError(f"{_where(path, error)} cannot be read: {error.strerror}")


def silent(path: AnyPath, error: OSError, waited_s: float = 0.0) -> UnreadableError:
    waited = f" (asked for {waited_s:.0f} s)" if waited_s else ""
    return UnreadableError(f"{_where(path, error)} cannot be read: {error.strerror or error}{waited}")


def _where(path: AnyPath, error: OSError) -> AnyPath:
    return error.filename if isinstance(error.filename, str) else path


def _ask_again(path: AnyPath, question: Callable[[], T], error: OSError) -> T:
    now = _patience.get()
    if now is None or not now.left_s or str(path) in now.in_vain:
        raise silent(path, error) from error
    logger.warning("%s cannot be read: %s; it is tried again for %.0f s", path, error.strerror or error, now.wait_s)
    pause_s, deadline = _POLL_S[0], time.monotonic() + now.left_s
    while time.monotonic() < deadline:
        time.sleep(min(pause_s, now.wait_s))
        pause_s = min(2 * pause_s, _POLL_S[1])
        try:
            found = question()
            now.left_s = now.wait_s
            return found
        except OSError as again:
            error = again
            if is_damage(error):
                raise
            if error.errno in _DENIED:
                raise denied(path, error) from error
    now.left_s = 0.0  # a storage that is away is asked for this long, however many files are wanted of it
    now.in_vain.add(str(path))  # a bad sector is one for ever; who goes back on purpose need not wait for it again
    raise silent(path, error, now.wait_s) from error


def stat_of(path: AnyPath) -> os.stat_result | None:
    """Of what is there, not followed where it is a link; None where nothing is. Raises as `ask`, but no OSError."""
    try:
        return ask(path, lambda: os.lstat(path))
    except (OSError, ValueError):
        return None


def exists(path: AnyPath) -> bool:
    """Whether something is there, be it a link to nowhere."""
    return stat_of(path) is not None


def is_link(path: AnyPath) -> bool:
    found = stat_of(path)
    return found is not None and stat.S_ISLNK(found.st_mode)


def is_folder(path: AnyPath) -> bool:
    """Whether a folder is there, or what a link leads to is one."""
    try:
        return stat.S_ISDIR(ask(path, lambda: os.stat(path)).st_mode)
    except (OSError, ValueError):
        return False


def names_in(folder: AnyPath) -> list[str]:
    """What lies in `folder`, in no order; nothing where there is none, or no folder."""
    try:
        return listed(folder)
    except OSError:
        return []


def listed(folder: AnyPath) -> list[str]:
    """The same; raises OSError where there is none."""
    return ask(folder, lambda: os.listdir(folder))


def walk(folder: AnyPath) -> Iterator[tuple[str, list[str], list[str]]]:
    """As os.walk, which takes a folder that cannot be listed for an empty one; this raises its OSError."""
    return os.walk(folder, onerror=_raise)


def _raise(error: OSError) -> NoReturn:
    raise error
