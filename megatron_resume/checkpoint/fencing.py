"""Each attempt reaches a role's save folder by a name of its own, which the next attempt takes away.

Whatever a dead attempt still writes by name (a checkpoint worker that outlived its rank, a process that hung in a
mount) then lands beside the models, in the folder of its own attempt, or nowhere.
"""

import functools
import os
from contextlib import suppress
from pathlib import Path
from stat import S_ISLNK

from ..crash import crash_point
from .attempts import attempt_numbers
from .layout import attempt_path
from .plain_files import NotPlainError, folder_below
from .storage import ask


@functools.cache  # every save asks
def own_name(root: Path, attempt: int, role: str) -> Path:
    """`attempts/<n>/<role>.save`: the link by which Megatron saves in this attempt."""
    return attempt_path(root, attempt) / f"{role}.save"


def make_own_name(root: Path, attempt: int, role: str, save: str) -> None:
    """Link to the absolute path `save`. Look afterwards whether a newer attempt began: it would not see this link."""
    link = own_name(root, attempt, role)
    with folder_below(root, link.parent) as folder:
        os.symlink(save, link.name, target_is_directory=True, dir_fd=folder)
        os.fsync(folder)
    crash_point("name.made", role)


def lost_name(root: Path, attempt: int, role: str, save: str) -> str | None:
    """Why what is saved by this attempt's name does not get into `save`; None when it does.

    Raises UnreadableError where nobody can tell.
    """
    link = own_name(root, attempt, role)
    try:
        found = ask(link, lambda: os.readlink(link))
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
    with suppress(FileNotFoundError, NotPlainError), folder_below(root, link.parent) as folder:
        # A late writer may have made a folder in its place since.
        if S_ISLNK(os.stat(link.name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(link.name, dir_fd=folder)
            os.fsync(folder)
            crash_point("name.taken", role)
