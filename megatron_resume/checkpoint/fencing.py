"""Each attempt reaches a role's save folder by a name of its own, which the next attempt takes away.

Whatever a dead attempt still writes by name (a checkpoint worker that outlived its rank, a process that hung in a
mount) then lands beside the models, in the folder of its own attempt, or nowhere.
"""

import functools
import os
from pathlib import Path

from ..crash import crash_point
from .atomic import fsync
from .attempts import attempt_numbers
from .layout import attempt_path


@functools.cache  # every save asks
def own_name(root: Path, attempt: int, role: str) -> Path:
    """`attempts/<n>/<role>.save`: the link by which Megatron saves in this attempt."""
    return attempt_path(root, attempt) / f"{role}.save"


def make_own_name(root: Path, attempt: int, role: str, save: str) -> None:
    """Link to the absolute path `save`. Look afterwards whether a newer attempt began: it would not see this link."""
    link = own_name(root, attempt, role)
    os.symlink(save, link, target_is_directory=True)
    fsync(link.parent)
    crash_point("name.made", role)


def lost_name(root: Path, attempt: int, role: str, save: str) -> str | None:
    """Why what is saved by this attempt's name does not get into `save`; None when it does."""
    link = own_name(root, attempt, role)
    try:
        found = os.readlink(link)
    except OSError as error:
        return f"{link} is no link to {save}: {error.strerror}"
    return None if found == save else f"{link} leads to {found}, not to {save}"


def take_names(root: Path, role: str, *, before: int) -> None:
    """Take away the names that attempts before `before` gave the save folder of `role`."""
    for attempt in attempt_numbers(root):
        if attempt < before:
            take_name(root, attempt, role)


def take_name(root: Path, attempt: int, role: str) -> None:
    """Take away the name that `attempt` gave the save folder of `role`, if it is still there."""
    link = own_name(root, attempt, role)
    if link.is_symlink() and not link.parent.is_symlink():  # a late writer may have made a folder in its place since
        link.unlink(missing_ok=True)
        fsync(link.parent)
        crash_point("name.taken", role)
