"""Line indexes kept between starts: each is built once for all processes of a machine, outside of the data's folder."""

import fcntl
import hashlib
import io
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..checkpoint.atomic import replacing
from ..checkpoint.plain_files import NotPlainError, open_file
from ..checkpoint.user_cache import make_user_cache, user_cache
from .line_index import BadIndex, LineIndex, Source, build_index, index_in_memory, open_index
from .lines import Progress

PATIENCE_S = 3600  # for another process that builds: a thousand times as long as for a million rows
UNUSED_AFTER_S = 7 * 24 * 3600  # an index of an earlier state of a file is then removed

_PROMPTS = "prompts"
_POLL_S = 0.05
_log = logging.getLogger(__name__)


class _Unusable(Exception):
    """The cache cannot be written."""


def default_cache() -> Path | None:
    """None for a user without a home."""
    ours = user_cache()
    return ours / _PROMPTS if ours else None


def find_or_build(file: BinaryIO, source: Source, cache: Path | None, progress: Progress) -> LineIndex:
    """The index of `file`, which is open at its beginning: from the cache, else built there, else built in memory.

    Processes that ask at once wait for the one that builds. A damaged index is built anew, with a warning.

    Raises:
        EOFError: The file became shorter.
    """
    try:
        path = _path(source, _ready(cache))
        return _find(path, source, on_damage=_log.debug) or _build(file, source, path, progress)
    except _Unusable as error:
        _log.warning(
            "The index of the prompts cannot be kept in %s (%s) and is built in memory by each process; set "
            "XDG_CACHE_HOME to a folder that you may write to",
            cache or "the home of this user",
            error,
        )
    file.seek(0)
    target = io.BytesIO()
    build_index(file, source, target, progress)
    return index_in_memory(target.getbuffer())


def check_once(source: Source, cache: Path | None, what: str, check: Callable[[], None]) -> None:
    """Call `check`, which raises where `source` is not as it must be, unless it has passed for `what` before.

    Of the processes of a machine that ask at once one checks, and the others wait for it.
    """
    try:
        path = _path(source, _ready(cache))
    except _Unusable:  # each process checks for itself then
        check()
        return
    passed = path.with_name(
        f"{path.name}.{hashlib.sha256(what.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}.checked"
    )
    if os.path.exists(passed):
        return
    with ExitStack() as stack:
        with suppress(_Unusable):  # each process checks for itself then
            stack.enter_context(_locked(path))
        if not os.path.exists(passed):
            check()
            with suppress(OSError):
                open_file(passed, os.O_WRONLY | os.O_CREAT, "ab").close()


def _ready(cache: Path | None) -> Path:
    """The folder, made; one that we chose is for this user alone.

    Raises:
        _Unusable: It cannot be.
    """
    if cache is None:
        raise _Unusable("it has none")
    if cache == default_cache():
        try:
            make_user_cache(cache.parent)
        except NotPlainError as error:
            raise _Unusable(f"{error.filename}: {error.strerror}") from error
        except OSError:
            pass  # one that may only be read serves as well, if it is there
    return cache


def _path(source: Source, cache: Path) -> Path:
    return cache / f"{source.where[:16]}-{source.size:x}-{source.mtime_ns:x}-{source.inode:x}.index"


def _find(path: Path, source: Source, *, on_damage: Callable[..., None]) -> LineIndex | None:
    try:
        index = open_index(path, source)
        with suppress(OSError):  # a cache that may only be read serves as well
            os.utime(path)
    except FileNotFoundError:
        return None
    except (OSError, BadIndex) as error:
        on_damage("%s is not used and built anew: %s", path, error)
        return None
    return index


def _build(file: BinaryIO, source: Source, path: Path, progress: Progress) -> LineIndex:
    with _locked(path):
        found = _find(path, source, on_damage=_log.warning)  # another process may have built it meanwhile
        return found or _write(file, source, path, progress)


def _write(file: BinaryIO, source: Source, path: Path, progress: Progress) -> LineIndex:
    try:
        _remove_leftovers(path)
        with replacing(path) as target:
            build_index(file, source, target, progress)
        return open_index(path, source)
    except (OSError, BadIndex) as error:
        raise _Unusable(str(error)) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock on all indexes of a file; it ends with its process at the latest."""
    with _open_lock(path) as lock:
        _wait_for(lock, path)
        yield


def _open_lock(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open_file(path.with_name(f"{_where(path)}.lock"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, "ab")
    except OSError as error:
        raise _Unusable(error.strerror) from error


def _where(path: Path) -> str:
    """What the names of all indexes of one file begin with."""
    return path.name.split("-")[0]


def _wait_for(lock: BinaryIO, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _log.info("Waiting for another process, which builds %s", path)
        _wait_with_patience(lock)
    except OSError as error:
        raise _Unusable(f"no lock there: {error.strerror}") from error


def _wait_with_patience(lock: BinaryIO) -> None:
    """Not for ever: a process that was stopped holds its lock."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_POLL_S)
    raise _Unusable(f"another process holds its lock for {PATIENCE_S} s")


def _remove_leftovers(path: Path) -> None:
    """What builders left who died, and indexes of earlier states of the file. Call with the lock."""
    for torn in path.parent.glob(f".{path.name}.*.tmp"):
        torn.unlink(missing_ok=True)
    long_ago = time.time() - UNUSED_AFTER_S
    for other in path.parent.glob(f"{_where(path)}-*.index*"):
        if not other.name.startswith(path.name) and other.stat().st_mtime < long_ago:
            other.unlink(missing_ok=True)
