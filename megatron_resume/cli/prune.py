"""`prune DIR --keep K`: remove all but the newest K resume points of the live line, as a job does by itself."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_resume.checkpoint.folder import Folder, read_folder, read_own_files, read_point, save_folder
from megatron_resume.checkpoint.layout import PointName
from megatron_resume.checkpoint.records import Receipt
from megatron_resume.checkpoint.removal import Removed, check_newest, finish, hidden_model_bytes, remove, unfinished
from megatron_resume.errors import ConfigError, DamagedError, MismatchError
from megatron_resume.resume.retention import surplus
from megatron_resume.shown import shown_in_line

from .terminal import console
from .values import as_json, root_of, trained_roles

if TYPE_CHECKING:
    from rich.console import Console


def prune(directory: Path, *, keep: int, models: bool, dry_run: bool, json: bool) -> None:
    """Remove all but the newest `keep` whole points of the live line, and with `models` their model checkpoints.

    Raises:
        ConfigError: `directory` is none, or `keep` is below 2.
        RejoinError: An attempt began meanwhile; what it may need is left.
    """
    if keep < 2:
        raise ConfigError(f"--keep is {keep}; type 2 or more, so that one point outlives a failed save")
    root = root_of(directory)
    folder = read_folder(root)
    _check_newest_is_readable(folder)
    damaged: dict[PointName, str] = {}
    names = surplus(folder, keep, lambda name: _is_whole(root, name, trained_roles(folder), damaged))
    done = _foretell(folder, names, models=models) if dry_run else _remove(folder, names, models=models)
    verb = "would be removed" if dry_run else "removed"
    found: list[dict[str, Any]] = []
    try:
        found.extend(_row(removed, verb) for removed in done)
    except Exception:
        _print_removed(console(stderr=True), found)  # before something failed
        raise
    passed = [{"iteration": n.iteration, "attempt": n.attempt, "reason": why} for n, why in damaged.items()]
    if json:
        print(as_json({"removed": found, "damaged": passed}))
    else:
        _print(found, passed, keep)


def _check_newest_is_readable(folder: Folder) -> None:
    """Raises DamagedError, or UnreadableError, where nobody can tell what the newest attempt continues from."""
    newest = max((*folder.starts, *folder.damaged_starts, *folder.unread_starts), default=0)
    if newest in folder.unread_starts:
        raise folder.unread_starts[newest]
    if newest in folder.damaged_starts:
        raise DamagedError(
            f"{folder.damaged_starts[newest]}; what attempt {newest} continues from is unknown, so nothing is removed: "
            "restore that file"
        )


def _foretell(folder: Folder, names: list[PointName], *, models: bool) -> Iterable[Removed]:
    """What `_remove` would yield."""
    root = folder.root
    check_newest(root, max(folder.starts, default=0))
    for name in names:
        yield Removed(name, _model_bytes(folder, name) if models else 0)
    for name in unfinished(root, models=models):
        yield Removed(name, hidden_model_bytes(root, name) if models else 0)


def _is_whole(root: Path, name: PointName, roles: tuple[str, ...], damaged: dict[PointName, str]) -> bool:
    try:
        read_point(root, name, roles)
    except (DamagedError, MismatchError) as error:
        damaged[name] = str(error)
        return False
    return True


def _remove(folder: Folder, names: list[PointName], *, models: bool) -> Iterable[Removed]:
    root = folder.root

    def save_of(receipt: Receipt) -> Path:
        return save_folder(root, receipt)

    attempt = max(folder.starts, default=0)
    yield from remove(root, names, save_of, attempt=attempt, models=models)
    yield from finish(root, save_of, attempt=attempt, models=models)


def _model_bytes(folder: Folder, name: PointName) -> int:
    try:
        receipts = read_own_files(folder.root, name, trained_roles(folder)).receipts
    except (DamagedError, MismatchError):
        return 0
    return sum(file.size for receipt in receipts.values() for file in receipt.files)


def _row(removed: Removed, verb: str) -> dict[str, Any]:
    name = removed.point
    return {
        "iteration": name.iteration,
        "attempt": name.attempt,
        "done": verb,
        "model_bytes": removed.bytes,
        "left": list(removed.left),
    }


def _print(rows: list[dict[str, Any]], damaged: list[dict[str, Any]], keep: int) -> None:
    out = console()
    _print_removed(out, rows)
    for point in damaged:
        name = PointName(point["iteration"], point["attempt"])
        out.print(f"{name} counts for none of the {keep} and stays: {shown_in_line(point['reason'])}")
    if not rows:
        out.print(f"Nothing is older than the newest {keep} whole points of the live line.")


def _print_removed(out: "Console", rows: list[dict[str, Any]]) -> None:
    for row in rows:
        name = PointName(row["iteration"], row["attempt"])
        out.print(f"{name}: {row['done']} ({row['model_bytes'] / 1e6:.1f} MB of models)")
        for reason in row["left"]:
            out.print(f"  a model of it is left: {shown_in_line(reason)}")
