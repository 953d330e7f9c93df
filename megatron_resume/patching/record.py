"""What was patched in a source tree, in a hidden file in its root, so that it can be undone to the byte."""

from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar

import msgspec

from ..checkpoint import atomic, records
from ..errors import DamagedError

NAME = ".megatron_resume_patch.json"
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Number = Annotated[int, msgspec.Meta(ge=0, le=1 << 30)]


class Patched(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file with our line in it."""

    path: str  # below the root, with `/`
    offset: Number  # bytes before our line
    length: Number  # of our line with its end
    before: Sha256  # of the whole file without our line
    after: Sha256  # and with it


class PatchRecord(records.Record, frozen=True, kw_only=True):
    """All files of a tree that this package patched."""

    max_bytes: ClassVar[int] = 4 << 20

    files: tuple[Patched, ...]


def digest(content: bytes) -> str:
    return sha256(content).hexdigest()


def read(root: Path) -> dict[PurePosixPath, Patched]:
    """What the record of `root` names, by path; empty without a record.

    Raises:
        DamagedError: It is no record of ours, or names a file outside of `root`.
    """
    path = root / NAME
    if not path.is_symlink() and not path.exists():
        return {}
    found = {}
    for file in records.read(path, PatchRecord).files:
        name = PurePosixPath(file.path)
        if not _is_below(file.path) or name in found:
            raise DamagedError(
                f"{path} names {file.path!a}, which is no file below {root}, or names it twice: this record is "
                "not ours; remove it, and take our line out by hand"
            )
        found[name] = file
    return found


def write(root: Path, files: dict[PurePosixPath, Patched]) -> None:
    """Replace the record, durable when this returns; without files it is removed."""
    path = root / NAME
    if files:
        atomic.replace(path, records.encode(PatchRecord(files=tuple(files[name] for name in sorted(files)))))
    elif path.exists():
        path.unlink()
        atomic.fsync(root)


def _is_below(text: str) -> bool:
    parts = text.split("/")
    return "\0" not in text and not any(part in ("", ".", "..") for part in parts) and text.endswith(".py")
