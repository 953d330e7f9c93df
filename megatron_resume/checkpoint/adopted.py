"""What a fresh attempt adopted: a model checkpoint that Megatron wrote before this job had resume points."""

from pathlib import Path
from typing import ClassVar

from ..errors import DamagedError
from ..roles import TRAINED
from .atomic import replace
from .layout import TRACKER, attempt_path
from .leftovers import saved_iterations
from .plain_files import open_plain
from .records import Record, encode, read
from .storage import ask

MAX_TRACKER_BYTES = 64


class Adopted(Record, frozen=True, kw_only=True):
    """`attempts/<n>/<role>.adopted.json`: where `role` began to train."""

    max_bytes: ClassVar[int] = 64 << 10

    role: str
    iteration: int  # Megatron's
    directory: str  # the folder that `--load` named, as an absolute path


def write(root: Path, attempt: int, adopted: Adopted) -> None:
    """Record what was loaded; an attempt that dies before its first commit leaves this to its successor."""
    replace(_path(root, attempt, adopted.role), encode(adopted), below=root)


def of_attempt(root: Path, attempt: int) -> dict[str, Adopted]:
    """What each role of the attempt adopted; what is damaged is left out."""
    found = {}
    for role in TRAINED:
        try:
            found[role] = read(_path(root, attempt, role), Adopted)
        except DamagedError:
            continue
    return found


def iteration_in(save: Path) -> int:
    """The iteration that Megatron's tracker in `save` names; 0 without one, and for a release, which has none.

    Where a kill left the tracker torn, the newest that lies there: a save writes it last.
    """
    try:
        text = ask(save / TRACKER, lambda: _tracker_in(save))
    except OSError:
        return 0
    if text.isdigit():
        return int(text)
    return 0 if text == b"release" else max(saved_iterations(save), default=0)


def _tracker_in(save: Path) -> bytes:
    with open_plain(save / TRACKER) as file:
        return file.read(MAX_TRACKER_BYTES).strip()


def _path(root: Path, attempt: int, role: str) -> Path:
    return attempt_path(root, attempt) / f"{role}.adopted.json"
