"""The files of one model checkpoint: make them durable, record them, and tell whether they changed."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from .atomic import fsync
from .records import ModelFile

DIGEST_UP_TO = 16 << 20  # bytes; every checkpoint's metadata is smaller, its shards may be far larger


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def record_files(folder: Path) -> tuple[ModelFile, ...]:
    """Fsync every file and folder below `folder` (Megatron does not) and describe each file."""
    records = []
    for directory, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(directory, name)
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
    if not os.path.isdir(folder):
        return f"{folder} is missing, or cannot be looked into"
    for record in records:
        problem = _problem_with_file(folder, record)
        if problem:
            return problem
    return None


def _problem_with_file(folder: Path, record: ModelFile) -> str | None:
    relative = PurePosixPath(record.path)
    if relative.is_absolute() or ".." in relative.parts:
        return f"{record.path!r} leads out of {folder}"
    path = folder / relative
    try:
        if path.is_symlink():
            return f"{path} is a symbolic link now"
        stat = path.stat()
        if stat.st_size != record.size:
            return f"{path} has {stat.st_size} bytes, {record.size} were saved"
        if (stat.st_mtime_ns, stat.st_ino) == (record.mtime_ns, record.inode):
            return None
        # Copied or touched since: only the content can tell, or its time where there is no digest of it.
        if record.sha256 is None:
            if stat.st_mtime_ns == record.mtime_ns:
                return None
            return f"{path} was written to since it was saved (copy large files with their times: cp -a, rsync -a)"
        if sha256_of(path) != record.sha256:
            return f"{path} holds other bytes than were saved"
    except (OSError, ValueError) as error:
        return f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"
    return None
