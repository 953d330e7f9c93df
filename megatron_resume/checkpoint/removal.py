"""Remove resume points: readers lose one at once and whole; its files go after that, whoever dies in between.

    iter_0000010.a0001   ->  pruned/iter_0000010.a0001, whose receipts stay as long as a model stands in their place
    <save>/iter_0000010  ->  <save>/pruned/iter_0000010.a0001  ->  gone, where models are to go, too

What somebody left unfinished is found in `pruned/`. Only what was receipted, or is ours, is ever deleted.
"""

import os
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from ..crash import crash_point
from ..errors import DamagedError, RejoinError
from .atomic import fsync, move
from .attempts import newer_than
from .digests import digests_of
from .folder import find_model
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
from .records import Receipt, read

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
        OSError: The storage refused; what was begun is finished by the next one.
    """
    for name in names:
        try:
            move(point_path(root, name), _hidden_path(root, name))
        except FileNotFoundError:
            continue  # another process of the job was quicker
        crash_point("prune.hidden")
        # After the point vanished: a start looks for its point after it can be seen, so one of the two sees the other.
        try:
            _check_newest(root, attempt)
        except RejoinError:
            move(_hidden_path(root, name), point_path(root, name))
            raise
        yield _clear(root, name, save_of, attempt=attempt, models=models)


def finish(root: Path, save_of: SaveOf, *, attempt: int, models: bool) -> Iterator[Removed]:
    """Finish what earlier removals left; with `models`, also the models that they had been told to keep.

    Raises as `remove` does.
    """
    for name in hidden(root):
        if models or os.path.lexists(_hidden_path(root, name) / COMMITTED):
            yield _clear(root, name, save_of, attempt=attempt, models=models)


def _check_newest(root: Path, attempt: int) -> None:
    newer = newer_than(root, attempt)
    if newer is not None:
        raise RejoinError(f"attempt {newer} began; what it may continue from is left where it is")


def hidden(root: Path) -> list[PointName]:
    """Removed points of which something is left: files of theirs, or models in their place. Ascending."""
    try:
        names = os.listdir(root / PRUNED)
    except FileNotFoundError:
        return []
    return sorted(point for name in names if (point := parse_point(name)) is not None)


def _hidden_path(root: Path, name: PointName) -> Path:
    return root / PRUNED / name.folder


def _clear(root: Path, name: PointName, save_of: SaveOf, *, attempt: int, models: bool) -> Removed:
    """Delete what a hidden point consists of, and last what says that it is not finished."""
    path = _hidden_path(root, name)
    receipts, left, freed = _receipts(path), list[str](), 0
    for receipt in receipts:
        save = save_of(receipt)
        problem = _take_model(root, save, receipt) if models else None
        left += [problem] if problem else []
        freed += _delete(save / PRUNED / name.folder, {record.path for record in receipt.files})
        crash_point("prune.model", receipt.role)
    _delete(path, {DATA, ARRAYS})
    # Its name says that models of this iteration are the job's: a start over has to move them aside.
    has_model = any(os.path.lexists(save_of(receipt) / model_folder(name.iteration)) for receipt in receipts)
    _check_newest(root, attempt)  # only now: a newer one takes our way to the models away, and none would be seen
    if not has_model:
        files = {receipt_file(receipt.role) for receipt in receipts}
        _delete(root / DIGESTS / name.folder, files)
        _delete(path, files)
    _delete(path, {COMMITTED})
    crash_point("prune.end")
    return Removed(name, freed, tuple(left))


def _receipts(path: Path) -> list[Receipt]:
    """Those that can be read: what a damaged one vouched for is nobody's to delete."""
    found = []
    for file in sorted(path.glob("*.json")):
        if file.name != DATA:
            with suppress(DamagedError):
                found.append(read(file, Receipt))
    return found


def _take_model(root: Path, save: Path, receipt: Receipt) -> str | None:
    """Move the model that was receipted to where it is deleted; why it was left, if something else stands there."""
    target = save / PRUNED / PointName(receipt.iteration, receipt.attempt).folder
    if os.path.lexists(target):
        return None
    try:
        model = find_model(save, receipt, digests_of(root, receipt))
    except DamagedError as error:
        return str(error) if os.path.lexists(save / model_folder(receipt.iteration)) else None
    move(model, target)
    return None


def _delete(folder: Path, files: Container[str]) -> int:
    """Delete these files (relative paths) in `folder`, follow no link, and the folders that are empty then.

    Returns the bytes.
    """
    if not os.path.isdir(folder) or folder.is_symlink():
        return 0
    freed = 0
    for directory, _, names in os.walk(folder, topdown=False):
        for path in (Path(directory, name) for name in names):
            if path.relative_to(folder).as_posix() in files or _is_torn(path):
                with suppress(FileNotFoundError):  # another process of the job was quicker
                    size = path.lstat().st_size
                    path.unlink()
                    freed += size
        with suppress(OSError):  # somebody else's files are in it
            os.rmdir(directory)
    fsync(folder.parent)
    return freed


def _is_torn(path: Path) -> bool:
    """Whether a death left this file under a temporary name of ours."""
    return path.name.startswith(".") and path.name.endswith(".tmp")
