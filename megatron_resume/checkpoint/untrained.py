"""Attempts that went back, or began anew, and have not trained yet: the lineage is as if they had not been.

Such an attempt says so before it begins, with the point at which the lineage goes on meanwhile. It takes that back
before its first train step or save: from then on it is the lineage.
"""

import os
from contextlib import suppress
from pathlib import Path

from .atomic import write_new
from .layout import ATTEMPTS, UNTRAINED, PointName, attempt_path
from .plain_files import folder_below
from .records import Record, encode, read_if_there
from .storage import exists


class Untrained(Record, frozen=True, kw_only=True):
    """`attempts/<n>/untrained.json`"""

    point: PointName  # the newest one that the lineage had when the attempt began


def write_untrained(root: Path, attempt: int, point: PointName) -> None:
    """Say it, before the attempt is begun."""
    write_new(attempt_path(root, attempt) / UNTRAINED, encode(Untrained(point=point)), below=root)


def is_untrained(root: Path, attempt: int) -> bool:
    return exists(attempt_path(root, attempt) / UNTRAINED)


def take_back(root: Path, attempt: int) -> None:
    """Take it back, durably; a second call does nothing."""
    with folder_below(root, attempt_path(root, attempt)) as folder:
        with suppress(FileNotFoundError):
            os.unlink(UNTRAINED, dir_fd=folder)
        os.fsync(folder)


def lineage_of_untrained(root: Path, attempt: int) -> PointName | None:
    """Where the lineage goes on below an attempt that has not trained; None if it has, or never had to say so.

    Raises:
        DamagedError: What it said cannot be read.
    """
    # Looked up for every attempt of a line; as a Path each would take longer than the rest of that.
    path = f"{root}/{ATTEMPTS}/{attempt:04d}/{UNTRAINED}"
    found = read_if_there(Path(path), Untrained) if exists(path) else None  # taken back when it trains
    return found.point if found else None
