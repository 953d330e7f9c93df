"""Remove resume points: readers lose one at once and whole; its files go after that, whoever dies in between.

    iter_0000010.a0001   ->  pruned/iter_0000010.a0001, whose receipts stay as long as a model stands in their place
    <save>/iter_0000010  ->  <save>/pruned/iter_0000010.a0001  ->  gone, where models are to go, too

What somebody left unfinished is found in `pruned/`. Only what was receipted, or is ours, is ever deleted.
"""

import os
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePath

import msgspec

from ..crash import crash_point
from ..errors import ConfigError, DamagedError, RejoinError
from ..roles import TRAINED
from .atomic import move
from .attempts import newer_than
from .digests import digests_of
from .folder import find_model, read_start
from .layout import (
    ARRAYS,
    COMMITTED,
    DATA,
    DIGESTS,
    PRUNED,
    PointName,
    model_folder,
    parse_point,
    point_path,
    receipt_file,
)
from .plain_files import NotPlainError, folder_below
from .records import Manifest, Receipt, read, read_if_there
from .storage import exists, is_folder, is_link, names_in

SaveOf = Callable[[Receipt], Path]  # the save folder of the receipt's role


class Removed(msgspec.Struct, frozen=True):
    """What the removal of a point freed, and why a model of it was left where it stands."""

    point: PointName
    bytes: int = 0  # of model files
    left: tuple[str, ...] = ()


def remove(root: Path, names: Iterable[PointName], save_of: SaveOf, *, attempt: int, models: bool) -> Iterator[Removed]:
    """Remove these points one by one.

    Raises:
        RejoinError: An attempt newer than `attempt` began; nothing more is removed.
        ConfigError: `pruned` is a link, by which points would leave the folder.
        OSError: The storage refused; what was begun is finished by the next one.
    """
    _check_no_link(root)
    for name in names:
        _clear_the_way(root, name)
        try:
            move(point_path(root, name), _hidden_path(root, name), below=root)
        except FileNotFoundError:
            continue  # another process of the job was quicker
        crash_point("prune.hidden")
        # After the point vanished: a start looks for its point after it can be seen, so one of the two sees the other.
        try:
            check_newest(root, attempt)
        except RejoinError:
            move(_hidden_path(root, name), point_path(root, name), below=root)
            raise
        yield _clear(root, name, save_of, attempt=attempt, models=models)


def finish(root: Path, save_of: SaveOf, *, attempt: int, models: bool) -> Iterator[Removed]:
    """Finish what earlier removals left; with `models`, also the models that they had been told to keep.

    Raises as `remove` does.
    """
    _check_no_link(root)
    for name in unfinished(root, models=models):
        yield _clear(root, name, save_of, attempt=attempt, models=models)


def unfinished(root: Path, *, models: bool) -> list[PointName]:
    """What `finish` would finish, in ascending order. A point that somebody restored is none of these."""
    return [
        name
        for name in hidden(root)
        if not exists(point_path(root, name)) and (models or exists(_hidden_path(root, name) / COMMITTED))
    ]


def hidden_model_bytes(root: Path, name: PointName) -> int:
    """Size of the models of a removed point, as its receipts have it."""
    receipts = _receipts(_hidden_path(root, name), name)
    return sum(record.size for receipt in receipts for record in receipt.files)


def check_newest(root: Path, attempt: int) -> None:
    """Raises RejoinError when an attempt newer than `attempt` began."""
    newer = newer_than(root, attempt)
    if newer is not None:
        raise RejoinError(f"attempt {newer} began; what it may continue from is left where it is")


def _check_no_link(root: Path) -> None:
    if is_link(root / PRUNED):
        raise ConfigError(f"{root / PRUNED} is a link, by which points would leave the folder; remove it")


def _clear_the_way(root: Path, name: PointName) -> None:
    """A point that was removed once, and restored from a backup, left receipts where it goes now."""
    path = _hidden_path(root, name)
    if exists(path) and exists(point_path(root, name)):
        receipts = {receipt_file(receipt.role) for receipt in _receipts(path, name)}
        _delete(root, path, {DATA, ARRAYS, COMMITTED, *receipts})


def hidden(root: Path) -> list[PointName]:
    """Removed points of which something is left: files of theirs, or models in their place. Ascending."""
    names = names_in(root / PRUNED)
    return sorted(point for name in names if (point := parse_point(name)) is not None)


def _hidden_path(root: Path, name: PointName) -> Path:
    return root / PRUNED / name.folder


def _clear(root: Path, name: PointName, save_of: SaveOf, *, attempt: int, models: bool) -> Removed:
    """Delete what a hidden point consists of, except what says that a model of it may still stand somewhere."""
    path = _hidden_path(root, name)
    receipts, left, freed = _receipts(path, name), list[str](), 0
    imported = models and _is_imported(root, name.attempt)
    for receipt in receipts:
        save = save_of(receipt)
        problem = _why_not_ours(save, imported) or _take_model(root, save, receipt) if models else None
        left += [problem] if problem else []
        freed += _delete(save, save / PRUNED / name.folder, {record.path for record in receipt.files})
        crash_point("prune.model", receipt.role)
    _delete(root, path, {DATA, ARRAYS})
    # Its name says that models of this iteration are the job's: a start over has to move them aside.
    is_known = _has_receipts_of_all_roles(path, receipts)
    if models and not is_known:
        left.append("not every role has a receipt that can be read, and nobody else knows where its model stands")
    has_model = not is_known or any(_may_have_model(save_of(receipt), name.iteration) for receipt in receipts)
    check_newest(root, attempt)  # only now: a newer one takes our way to the models away, and none would be seen
    if is_known:
        _delete(root, path, {COMMITTED})  # before the receipts, or the next one would miss them
    if not has_model:
        files = {receipt_file(receipt.role) for receipt in receipts}
        _delete(root, root / DIGESTS / name.folder, files)
        _delete(root, path, files)
    crash_point("prune.end")
    return Removed(name, freed, tuple(left))


def _receipts(path: Path, name: PointName) -> list[Receipt]:
    """Those of this point that can be read: what another one vouched for is not to be deleted with it."""
    found = []
    for role in TRAINED:
        with suppress(DamagedError):
            receipt = read(path / receipt_file(role), Receipt)
            if (receipt.role, receipt.iteration, receipt.attempt) == (role, *name):
                found.append(receipt)
    return found


def _has_receipts_of_all_roles(path: Path, receipts: list[Receipt]) -> bool:
    """Else a model may stand of which nobody knows any more where."""
    try:
        manifest = read_if_there(path / COMMITTED, Manifest)
    except DamagedError:
        return False
    # Whoever took it away has seen them all.
    return manifest is None or {receipt.role for receipt in receipts}.issuperset(manifest.roles)


def _is_imported(root: Path, attempt: int) -> bool:
    try:
        return "imported" in read_start(root, attempt).config
    except DamagedError:
        return False


def _why_not_ours(save: Path, imported: bool) -> str | None:
    if imported:
        return "it was imported, so another project's job wrote it; delete it by hand"
    return None if is_folder(save) else f"{save} leads nowhere, as where another role's process has ended"


def _may_have_model(save: Path, iteration: int) -> bool:
    return not is_folder(save) or exists(save / model_folder(iteration))


def _take_model(root: Path, save: Path, receipt: Receipt) -> str | None:
    """Move the model that was receipted to where it is deleted; why it was left, if something else stands there."""
    target = save / PRUNED / PointName(receipt.iteration, receipt.attempt).folder
    if is_link(target.parent):
        return f"{target.parent} is a link"
    if exists(target):
        return None
    try:
        model = find_model(save, receipt, digests_of(root, receipt))
    except DamagedError as error:
        return str(error) if exists(save / model_folder(receipt.iteration)) else None
    move(model, target, below=save)
    return None


def _delete(base: Path, folder: Path, files: Container[str]) -> int:
    """Delete these files (relative paths) in `folder`, and the folders that are empty then; from `base` on through no
    link. Returns the bytes.
    """
    freed = 0
    try:
        with folder_below(base, folder) as descriptor:
            for directory, names, others, at in os.fwalk(".", topdown=False, dir_fd=descriptor):
                for path in (PurePath(directory, name) for name in others):
                    if path.as_posix() in files or _is_torn(path):
                        with suppress(FileNotFoundError):  # another process of the job was quicker
                            size = os.stat(path.name, dir_fd=at, follow_symlinks=False).st_size
                            os.unlink(path.name, dir_fd=at)
                            freed += size
                for name in names:
                    with suppress(OSError):  # somebody else's files are in it, or it is a link
                        os.rmdir(name, dir_fd=at)
        with folder_below(base, folder.parent) as above:
            with suppress(OSError):
                os.rmdir(folder.name, dir_fd=above)
            os.fsync(above)
    except (FileNotFoundError, NotPlainError):
        return freed
    return freed


def _is_torn(path: PurePath) -> bool:
    """Whether a death left this file under a temporary name of ours."""
    return path.name.startswith(".") and path.name.endswith(".tmp")
