"""The files of one model checkpoint: make them durable, record them, and tell whether they changed."""

import functools
import hashlib
import os
from collections.abc import Callable, Iterable
from itertools import accumulate
from pathlib import Path
from stat import S_ISLNK

from ..errors import DamagedError
from .atomic import fsync
from .momentary import is_momentary, lasting
from .plain_files import check_plain, open_plain
from .records import ModelFile
from .storage import ask, is_folder, is_link, walk

DIGEST_UP_TO = 16 << 20  # bytes; every checkpoint's metadata is smaller, its shards may be far larger
BLOCK = 1 << 20  # bytes

DigestOf = Callable[[ModelFile], str | None]  # the digest of a file that its receipt has none of, where one is known


def sha256_of(path: Path) -> str:
    """Raises OSError where `path` is no plain file."""
    return ask(path, lambda: _sha256_of(path))


def _sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open_plain(path) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sha256_aside(path: Path, on_block: Callable[[int], None]) -> str:
    """The same, leaving the page cache to others. `on_block` gets the bytes of each block, and may raise to end it."""
    return ask(path, lambda: _sha256_aside(path, on_block))


def _sha256_aside(path: Path, on_block: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    with open_plain(path) as file:
        while block := file.read(BLOCK):
            digest.update(block)
            _leave_cache(file.fileno(), file.tell())
            on_block(len(block))
    return digest.hexdigest()


def _leave_cache(descriptor: int, end: int) -> None:
    """Up to `end` only: what the kernel has read ahead is still to come."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, end, os.POSIX_FADV_DONTNEED)


def record_files(folder: Path) -> tuple[ModelFile, ...]:
    """Fsync every file and folder below `folder` (Megatron does not) and describe each file that is there to stay."""
    records = []
    for directory, folders, names in walk(folder):
        folders[:] = [name for name in folders if not is_momentary(name)]
        for name in sorted(names):
            if is_momentary(name):
                continue
            path = Path(directory, name)
            with open_plain(path) as file:  # else what is loaded could change without a trace, or never end
                os.fsync(file.fileno())
                stat = os.fstat(file.fileno())
            records.append(_describe(path, folder, stat))
        fsync(Path(directory))
    fsync(folder.parent)
    return tuple(sorted(records, key=lambda record: record.path))


def _describe(path: Path, folder: Path, stat: os.stat_result) -> ModelFile:
    return ModelFile(
        path=path.relative_to(folder).as_posix(),
        size=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        inode=stat.st_ino,
        sha256=sha256_of(path) if stat.st_size <= DIGEST_UP_TO else None,
    )


def unknown(_: ModelFile) -> str | None:
    """No digest is known but those of receipts."""
    return None


def problem_with_files(folder: Path, records: Iterable[ModelFile], digest_of: DigestOf = unknown) -> str | None:
    """Why `folder` no longer holds what was recorded; None when it does."""
    records = lasting(records)
    if not records:
        return f"{folder}: the receipt names no file"
    if is_link(folder):
        return f"{folder} is a symbolic link; move the model itself there"
    if not is_folder(folder):
        return f"{folder} is missing"
    problem = _problem_with_names(folder, records)
    for record in records if problem is None else ():
        problem = problem or problem_with_file(folder, record, digest_of)
    return problem


def _problem_with_names(folder: Path, records: tuple[ModelFile, ...]) -> str | None:
    """What we never record: each file lies below `folder`, without a link on the way, and once."""
    names = [record.path for record in records]
    for name in names:
        if _leads_out(name):
            return f"{name!a} leads out of {folder}, or is no name of a file"
    if len(set(names)) < len(names):
        return f"{folder}: the receipt names a file twice"
    between = {parent for name in names for parent in accumulate(name.split("/")[:-1], "{}/{}".format)}
    links = [folder / parent for parent in sorted(between) if is_link(folder / parent)]
    return f"{links[0]} is a symbolic link" if links else None


def _leads_out(name: str) -> bool:
    return "\0" in name or not {"", ".", ".."}.isdisjoint(name.split("/"))


def problem_with_file(folder: Path, record: ModelFile, digest_of: DigestOf) -> str | None:
    """Why a file in `folder` is no longer what was recorded. It is read only where its time and inode differ."""
    try:
        path, stat = locate(folder, record)
        if (stat.st_mtime_ns, stat.st_ino) == (record.mtime_ns, record.inode):
            return None
        # Copied or touched since: only the content can tell, or its time where there is no digest of it.
        if record.sha256 is not None and record.size > DIGEST_UP_TO:
            return f"{path} has {record.size} bytes, and a digest, which none over {DIGEST_UP_TO} was given"
        if record.sha256 is not None:
            return None if sha256_of(path) == record.sha256 else other_bytes(path)
        if stat.st_mtime_ns == record.mtime_ns:
            return None
        digest = digest_of(record)
        if digest is None:
            return f"{path} was written to since it was saved (copy large files with their times: cp -a, rsync -a)"
        return None if _sha256_as_of(path, *_moment_of(stat)) == digest else other_bytes(path)
    except DamagedError as error:
        return str(error)
    except OSError as error:
        return unreadable(path, error)


def locate(folder: Path, record: ModelFile) -> tuple[Path, os.stat_result]:
    """Where a recorded file is, and its stat.

    Raises:
        DamagedError: It is not there, no plain file, or not of the recorded size.
    """
    if _leads_out(record.path):
        raise DamagedError(f"{record.path!a} leads out of {folder}, or is no name of a file")
    path = folder / record.path
    try:
        stat = ask(path, path.lstat)
        if S_ISLNK(stat.st_mode):
            raise DamagedError(f"{path} is a symbolic link now")
        check_plain(stat, path)
    except (OSError, ValueError) as error:
        raise DamagedError(unreadable(path, error)) from error
    if stat.st_size != record.size:
        raise DamagedError(f"{path} has {stat.st_size} bytes, {record.size} were saved")
    return path, stat


def other_bytes(path: Path) -> str:
    return f"{path} holds other bytes than were saved"


def unreadable(path: Path, error: OSError | ValueError) -> str:
    return f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"


def _moment_of(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


@functools.lru_cache(maxsize=10_000)  # a start asks several times, and the files are large
def _sha256_as_of(path: Path, *moment: int) -> str:
    return sha256_of(path)
