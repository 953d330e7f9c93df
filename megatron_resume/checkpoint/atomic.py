"""Write a file so that a reader finds it whole or not at all, also after a power cut."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..crash import crash_point


def fsync(path: Path) -> None:
    """Make a file's content, or a folder's names, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make `path` and the folders above it that are missing, durable when this returns."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    fsync(path.parent)


def write_new(path: Path, data: bytes) -> None:
    """Create `path` with `data`, durable when this returns.

    Raises:
        FileExistsError: `path` exists; it is left as it is.
    """
    temporary = _write_temporary(path, data)
    try:
        os.link(temporary, path)  # unlike a rename, never replaces
        crash_point("write.named", path.name)
    finally:
        temporary.unlink()
    fsync(path.parent)
    crash_point("write.end", path.name)


def replace(path: Path, data: bytes) -> None:
    """Create or replace `path`, durable when this returns."""
    temporary = _write_temporary(path, data)
    with _removed_on_failure(temporary):
        os.replace(temporary, path)
    crash_point("write.named", path.name)
    fsync(path.parent)
    crash_point("write.end", path.name)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file to fill; when the block ends without an error it takes the place of `path`, durable."""
    temporary = _temporary(path)
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync(path.parent)


def move(source: Path, target: Path) -> None:
    """Rename a file or folder into another folder, which is made, durable when this returns."""
    crash_point("move.begin", source.name)
    make_folder(target.parent)
    os.rename(source, target)
    crash_point("move.renamed", source.name)
    fsync(target.parent)
    fsync(source.parent)
    crash_point("move.end", source.name)


def _write_temporary(path: Path, data: bytes) -> Path:
    crash_point("write.begin", path.name)
    temporary = _temporary(path)
    with _removed_on_failure(temporary), open(temporary, "xb") as file:
        file.write(data)
        file.flush()
        crash_point("write.written", path.name)
        os.fsync(file.fileno())
    crash_point("write.synced", path.name)
    return temporary


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")


@contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    """A full disk must not fill up with what could not be written to it."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise
