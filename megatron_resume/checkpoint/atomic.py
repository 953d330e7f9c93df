"""Write a file so that a reader finds it whole or not at all, also after a power cut.

`below` is the folder that a person named: from there on no link is followed on the way to the file, so nobody who may
write below it can lead us elsewhere. Without it the file's own folder was named.
"""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..crash import crash_point
from .plain_files import folder_below


def fsync(path: Path) -> None:
    """Make a file's content, or a folder's names, durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path, *, below: Path | None = None) -> None:
    """Make `path` and the folders above it that are missing, durable when this returns."""
    if below is not None:
        _make_below(below, path)
    elif not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        fsync(path.parent)


def _make_below(below: Path, path: Path) -> None:
    make_folder(below)
    reached = below
    for name in path.relative_to(below).parts:
        with folder_below(below, reached) as folder, suppress(FileExistsError):
            os.mkdir(name, dir_fd=folder)
            os.fsync(folder)
        reached /= name
    with folder_below(below, path):  # what is there already is a folder
        pass


def write_new(path: Path, data: bytes, *, below: Path | None = None, mode: int = 0o666) -> None:
    """Create `path` with `data`, durable when this returns; the umask narrows `mode`, as ever.

    Raises:
        FileExistsError: `path` exists; it is left as it is.
    """
    with folder_below(below or path.parent, path.parent) as folder:
        temporary = _write_temporary(folder, path.name, data, mode)
        try:
            # Unlike a rename, never replaces; and should the temporary name be a link by now, that is what gets it.
            os.link(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            crash_point("write.named", path.name)
        finally:
            os.unlink(temporary, dir_fd=folder)
        os.fsync(folder)
    crash_point("write.end", path.name)


def replace(path: Path, data: bytes, *, below: Path | None = None) -> None:
    """Create or replace `path`, durable when this returns."""
    with folder_below(below or path.parent, path.parent) as folder:
        temporary = _write_temporary(folder, path.name, data)
        with _removed_on_failure(folder, temporary):
            os.replace(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        crash_point("write.named", path.name)
        os.fsync(folder)
    crash_point("write.end", path.name)


@contextmanager
def replacing(path: Path, *, below: Path | None = None, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A new file to fill; when the block ends without an error it takes the place of `path`, durable."""
    with folder_below(below or path.parent, path.parent) as folder:
        temporary = _temporary(path.name)
        with _removed_on_failure(folder, temporary):
            with open(temporary, "xb", opener=_in(folder, mode)) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)


def move(source: Path, target: Path, *, below: Path) -> None:
    """Rename a file or folder into another folder, which is made, durable when this returns."""
    crash_point("move.begin", source.name)
    make_folder(target.parent, below=below)
    with folder_below(below, source.parent) as old, folder_below(below, target.parent) as new:
        try:
            os.rename(source.name, target.name, src_dir_fd=old, dst_dir_fd=new)
        except OSError as error:
            error.filename, error.filename2 = str(source), str(target)
            raise
        crash_point("move.renamed", source.name)
        os.fsync(new)
        os.fsync(old)
    crash_point("move.end", source.name)


def _write_temporary(folder: int, name: str, data: bytes, mode: int = 0o666) -> str:
    crash_point("write.begin", name)
    temporary = _temporary(name)
    with _removed_on_failure(folder, temporary), open(temporary, "xb", opener=_in(folder, mode)) as file:
        file.write(data)
        file.flush()
        crash_point("write.written", name)
        os.fsync(file.fileno())
    crash_point("write.synced", name)
    return temporary


def _in(folder: int, mode: int) -> Callable[[str, int], int]:
    return lambda name, flags: os.open(name, flags, mode, dir_fd=folder)


def _temporary(name: str) -> str:
    return f".{name}.{secrets.token_hex(6)}.tmp"


@contextmanager
def _removed_on_failure(folder: int, name: str) -> Iterator[None]:
    """A full disk must not fill up with what could not be written to it."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)
        raise
