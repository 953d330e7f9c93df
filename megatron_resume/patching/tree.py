"""The Python files of a source tree that may be entrypoints: plain files below it, read without leaving it."""

import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..checkpoint.plain_files import open_plain
from .entrypoints import is_named_like_one, may_be_one

MAX_BYTES = 8 << 20  # no entrypoint has a thousandth of this
SKIPPED = ("tests", "__pycache__", "node_modules", "site-packages")


class Source(NamedTuple):
    """A file that may be an entrypoint."""

    path: PurePosixPath  # below the root
    content: bytes
    leads_to: Path | None = None  # what is outside of the root, where the file is a symbolic link to it


def sources(root: Path, skipped: Collection[str] = ()) -> Iterator[Source]:
    """Files below `root` that hold a word of an entrypoint, or are named like one; in the order of their names.

    Hidden folders, virtual environments, and folders of tests and of installed packages are left out; folders that
    are symbolic links, too; and `skipped`, which are paths below `root`.

    Raises:
        OSError: One of them cannot be read.
    """
    for folder, folders, files in os.walk(root, onerror=_raise):
        folders[:] = sorted(name for name in folders if _is_looked_into(Path(folder, name)))
        for name in sorted(files):
            file = Path(folder, name)
            if name.endswith(".py") and str(file.relative_to(root)) not in skipped:
                yield from _source(root, file)


def read_inside(root: Path, path: PurePosixPath) -> bytes:
    """The plain file `path` below `root`.

    Raises:
        OSError: It is missing, no plain file, or reached through a link.
    """
    whole = root / path
    if Path(os.path.realpath(whole.parent)) != Path(os.path.realpath(root)) / path.parent:
        raise OSError(0, "a folder above it is a symbolic link", str(whole))
    with open_plain(whole) as file:
        return file.read(MAX_BYTES + 1)


def _raise(error: OSError) -> None:
    raise error


def _is_looked_into(folder: Path) -> bool:
    return not (folder.name.startswith(".") or folder.name in SKIPPED or (folder / "pyvenv.cfg").exists())


def _source(root: Path, file: Path) -> Iterator[Source]:
    outside = None
    if file.is_symlink():
        target = Path(os.path.realpath(file))
        if Path(os.path.realpath(root)) in target.parents:
            return  # found where it lies
        outside = target
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            return
    except FileNotFoundError:  # a link to nowhere
        return
    with open_plain(outside or file) as opened:
        content = opened.read(MAX_BYTES + 1)
    path = PurePosixPath(file.relative_to(root).as_posix())
    if len(content) <= MAX_BYTES and (is_named_like_one(path) or may_be_one(content)):
        yield Source(path, content, outside)
