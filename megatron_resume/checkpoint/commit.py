"""Write receipts and the data checkpoint of a point, and commit it when it is whole."""

import os
from collections.abc import Collection
from pathlib import Path

import msgspec

from ..crash import crash_point
from ..errors import ConfigError
from .atomic import fsync, write_new
from .layout import ARRAYS, COMMITTED, DATA, PointName, point_path, receipt_file
from .model_files import sha256_of
from .records import MAX_ARRAYS_BYTES, DataCheckpoint, Digest, Manifest, Moment, Receipt, Unknown, encode, read
from .storage import exists, is_link


def open_point(root: Path, name: PointName) -> Path:
    """Make the folder of a point, before anything of its models is written. One process per role.

    On the training thread, which does not wait for the disk: `make_name_durable` is for the writer.
    """
    path = point_path(root, name)
    try:
        os.mkdir(f"{root}/{name.folder}")
    except FileExistsError:  # another role was here
        if is_link(path):  # or somebody who wants us to write elsewhere
            raise
    return path


def make_name_durable(point: Path) -> None:
    """Let the point's folder outlive a power cut; before its model does, whose iteration it claims."""
    fsync(point.parent)


def write_receipt(point: Path, receipt: Receipt) -> None:
    """State that the role's model checkpoint is complete and durable."""
    write_new(point / receipt_file(receipt.role), encode(receipt), below=point.parent)


def write_data(point: Path, data: DataCheckpoint, arrays: bytes | None) -> None:
    """Write the data checkpoint; `arrays` is a safetensors file, where tracked state or RNG has any."""
    if arrays is not None:
        if len(arrays) > MAX_ARRAYS_BYTES:
            raise ConfigError(f"tracked state has {len(arrays)} bytes, {MAX_ARRAYS_BYTES} can be stored; track less")
        write_new(point / ARRAYS, arrays, below=point.parent)
    write_new(point / DATA, encode(data), below=point.parent)


def is_committed(point: Path) -> bool:
    return exists(point / COMMITTED)


def missing_parts(point: Path, roles: Collection[str]) -> list[str]:
    """What `point` still lacks before it can be committed."""
    parts = {role: receipt_file(role) for role in roles} | {"data": DATA}
    return [part for part, file in parts.items() if not exists(point / file)]


def differing_parts(point: Path, roles: Collection[str]) -> list[str]:
    """Roles whose receipt is of another moment than the data checkpoint, with what each says."""
    data = read(point / DATA, DataCheckpoint)
    receipts = [read(point / receipt_file(role), Receipt) for role in roles]
    return [
        f"{r.role} at {_shown(r.progress)}, the data at {_shown(data.progress)}"
        for r in receipts
        if r.nonce != data.nonce or not is_at(r, data.progress)
    ]


def is_at(receipt: Receipt, moment: Moment) -> bool:
    """Whether the role was saved at `moment`, as far as its receipt says.

    Where another process owns the data it says nothing: then iteration and attempt alone tie both together, of which
    an attempt saves each once.
    """
    return receipt.progress is msgspec.UNSET or receipt.progress == moment


def _shown(moment: Moment | Unknown) -> str:
    if moment is msgspec.UNSET:
        return "an episode that it does not know"
    return f"episode {moment.episode} and sample {moment.consumed_samples}"


def moment_of(point: Path) -> Moment:
    """How far the data had been used at a point whose data checkpoint is there."""
    return read(point / DATA, DataCheckpoint).progress


def model_bytes(point: Path, roles: Collection[str]) -> int:
    """Size of the models of a point whose receipts are there."""
    receipts = [read(point / receipt_file(role), Receipt) for role in roles]
    return sum(file.size for receipt in receipts for file in receipt.files)


def commit(point: Path, name: PointName, *, nonce: str, roles: Collection[str]) -> None:
    """Declare `point` complete; until then no reader will use it.

    Call when nothing is missing and nothing differs. A second call, from the other role's process, does
    nothing.
    """
    names = [*map(receipt_file, roles), DATA, *([ARRAYS] if exists(point / ARRAYS) else [])]
    files = {n: Digest(size=(point / n).stat().st_size, sha256=sha256_of(point / n)) for n in names}
    manifest = Manifest(iteration=name.iteration, attempt=name.attempt, nonce=nonce, roles=tuple(roles), files=files)
    try:
        write_new(point / COMMITTED, encode(manifest), below=point.parent)
    except FileExistsError:
        return
    crash_point("commit.end")
