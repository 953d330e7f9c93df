"""Digests of large model files: computed after the commit, kept beside the points, and used where time cannot tell."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from ..errors import DamagedError
from .atomic import make_folder, write_new
from .layout import PointName, digests_path
from .model_files import DigestOf, locate, sha256_aside
from .momentary import lasting
from .records import ModelDigests, ModelFile, Receipt, encode, read_if_there


def undigested(receipt: Receipt) -> list[ModelFile]:
    """The files that the receipt vouches for by size and time only."""
    return [record for record in lasting(receipt.files) if record.sha256 is None]


def compute(model: Path, receipt: Receipt, on_block: Callable[[int], None]) -> ModelDigests:
    """Read those files in the model folder `model`; one that is not as it was saved, before or after, gets no digest.

    `on_block` is told the bytes of each block, and may raise to end it.
    """
    return ModelDigests(
        role=receipt.role,
        iteration=receipt.iteration,
        attempt=receipt.attempt,
        nonce=receipt.nonce,
        files=tuple(_digested(model, undigested(receipt), on_block)),
    )


def _digested(model: Path, records: list[ModelFile], on_block: Callable[[int], None]) -> Iterator[ModelFile]:
    for record in records:
        if not _is_as_saved(model, record):
            continue
        sha256 = sha256_aside(model / record.path, on_block)
        if _is_as_saved(model, record):
            yield msgspec.structs.replace(record, sha256=sha256)


def _is_as_saved(model: Path, record: ModelFile) -> bool:
    try:
        _, stat = locate(model, record)
    except DamagedError:
        return False
    return (stat.st_mtime_ns, stat.st_ino) == (record.mtime_ns, record.inode)


def write_digests(root: Path, digests: ModelDigests) -> None:
    """Record them, durable when this returns.

    Raises:
        FileExistsError: Another process of the job was here.
    """
    path = digests_path(root, PointName(digests.iteration, digests.attempt), digests.role)
    make_folder(path.parent, below=root)
    write_new(path, encode(digests), below=root)


def read_digests(root: Path, receipt: Receipt) -> ModelDigests | None:
    """What is recorded for the model of `receipt`; None where nothing is.

    Raises:
        DamagedError: It cannot be read, or belongs to another model.
    """
    path = digests_path(root, PointName(receipt.iteration, receipt.attempt), receipt.role)
    found = read_if_there(path, ModelDigests)
    if found is None:
        return None
    of = (found.role, found.iteration, found.attempt, found.nonce)
    if of != (receipt.role, receipt.iteration, receipt.attempt, receipt.nonce):
        raise DamagedError(f"{path} belongs to another model")
    return found


def digests_of(root: Path, receipt: Receipt) -> DigestOf:
    """Looks up digests of this model's files; on disk when first asked, since most starts need none.

    What is damaged counts as not there: then size and time decide, as without it.
    """

    @functools.cache
    def found() -> dict[ModelFile, str | None]:
        try:
            digests = read_digests(root, receipt)
        except DamagedError:
            return {}
        files = digests.files if digests else ()
        return {msgspec.structs.replace(file, sha256=None): file.sha256 for file in files}

    return lambda record: found().get(msgspec.structs.replace(record, sha256=None))
