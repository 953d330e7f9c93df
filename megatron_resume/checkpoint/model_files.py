"""The files of one model checkpoint: make them durable, record them, and tell whether they changed."""

import hashlib
import os
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path
from stat import S_ISLNK

from .atomic import fsync
from .plain_files import check_plain, open_plain
from .records import ModelFile

DIGEST_UP_TO = 16 << 20  # bytes; every checkpoint's metadata is smaller, its shards may be far larger


def sha256_of(path: Path) -> str:
    """Raises OSError where `path` is no plain file."""
    digest = hashlib.sha256()
    with open_plain(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def record_files(folder: Path) -> tuple[ModelFile, ...]:
    """Fsync every file and folder below `folder` (Megatron does not) and describe each file."""
    records = []
    for directory, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(directory, name)
            check_plain(path.lstat(), path)  # else what is loaded could change without a trace, or never end
            fsync(path)
            records.append(_describe(path, folder))
        fsync(Path(directory))
    fsync(folder.parent)
    return tuple(sorted(records, key=lambda record: record.path))


def _describe(path: Path, folder: Path) -> ModelFile:
    stat = path.stat()
    return ModelFile(
        path=path.relative_to(folder).as_posix(),
        size=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        inode=stat.st_ino,
        sha256=sha256_of(path) if stat.st_size <= DIGEST_UP_TO else None,
    )


def problem_with_files(folder: Path, records: Iterable[ModelFile]) -> str | None:
    """Why `folder` no longer holds what was recorded; None when it does."""
    records = tuple(records)
    if not records:
        return f"{folder}: the receipt names no file"
    if os.path.islink(folder):
        return f"{folder} is a symbolic link; move the model itself there"
    if not os.path.isdir(folder):
        return f"{folder} is missing, or cannot be looked into"
    return _problem_with_names(folder, records) or next(
        filter(None, (_problem_with_file(folder, r) for r in records)), None
    )


def _problem_with_names(folder: Path, records: tuple[ModelFile, ...]) -> str | None:
    """What we never record: each file lies below `folder`, without a link on the way, and once."""
    names = [record.path for record in records]
    for name in names:
        if "\0" in name or {"", ".", ".."}.intersection(name.split("/")):
            return f"{name!a} leads out of {folder}, or is no name of a file"
    if len(set(names)) < len(names):
        return f"{folder}: the receipt names a file twice"
    between = {parent for name in names for parent in accumulate(name.split("/")[:-1], "{}/{}".format)}
    links = [folder / parent for parent in sorted(between) if os.path.islink(folder / parent)]
    return f"{links[0]} is a symbolic link" if links else None


def _problem_with_file(folder: Path, record: ModelFile) -> str | None:
    path = folder / record.path
    try:
        stat = path.lstat()
        if S_ISLNK(stat.st_mode):
            return f"{path} is a symbolic link now"
        check_plain(stat, path)
        if stat.st_size != record.size:
            return f"{path} has {stat.st_size} bytes, {record.size} were saved"
        if (stat.st_mtime_ns, stat.st_ino) == (record.mtime_ns, record.inode):
            return None
        # Copied or touched since: only the content can tell, or its time where there is no digest of it.
        if record.sha256 is None:
            if stat.st_mtime_ns == record.mtime_ns:
                return None
            return f"{path} was written to since it was saved (copy large files with their times: cp -a, rsync -a)"
        if record.size > DIGEST_UP_TO:
            return f"{path} has {record.size} bytes, and a digest, which none over {DIGEST_UP_TO} was given"
        if sha256_of(path) != record.sha256:
            return f"{path} holds other bytes than were saved"
    except (OSError, ValueError) as error:
        return f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"
    return None
