"""Whether a file system has the links that attempts need: tried before an attempt gets a number."""

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path

from ..errors import ConfigError
from .atomic import make_folder
from .storage import is_folder

_PASSING = (errno.ESTALE, errno.ETIMEDOUT, errno.ENOSPC, errno.EDQUOT)  # says nothing about links


def check_links(root: Path) -> None:
    """Try both kinds in `root`, which is made if it is missing. What was made is gone when this returns or raises.

    Raises:
        ConfigError: It lacks one of them. What the storage says to that differs: EPERM, EOPNOTSUPP, ENOSYS, and from
            rclone EIO; so it is whatever it says where a file can be written.
        OSError: Not even a file can be written.
    """
    made = _missing(root)
    make_folder(root)
    name = root / f".links.{secrets.token_hex(6)}.tmp"
    links = {"hard": name.with_suffix(".hard.tmp"), "symbolic": name.with_suffix(".symbolic.tmp")}
    try:
        _write(name)
        for kind, link in links.items():
            error = _why_not(kind, name, link)
            if error is not None:
                raise ConfigError(
                    f"start refused: {root}: {os.strerror(error.errno or 0)}: this file system lacks {kind} links, by "
                    "which an attempt gets its number and its files appear whole; name a --data-checkpoint-path on one "
                    "that has hard and symbolic links (--save may stay where it is)"
                ) from error
        made = []
    finally:
        for path in (*links.values(), name):
            with suppress(OSError):
                path.unlink(missing_ok=True)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def _why_not(kind: str, name: Path, link: Path) -> OSError | None:
    """The error of a link that cannot be made, also not a second time, while a file can be written; None if it can.

    Raises:
        OSError: The storage fails altogether, or says what says nothing about links.
    """
    found = None
    for _ in range(2):
        try:
            link.unlink(missing_ok=True)
            os.link(name, link) if kind == "hard" else os.symlink(name.name, link)
        except OSError as error:
            if error.errno in _PASSING:
                raise
            found = error
            name.unlink()
            _write(name)
        else:
            return None
    return found


def _missing(folder: Path) -> list[Path]:
    """The folders that would have to be made, the innermost first."""
    return [] if is_folder(folder) else [folder, *_missing(folder.parent)]


def _write(path: Path) -> None:
    with open(path, "xb") as file:
        file.write(b"does this storage have links?\n")
