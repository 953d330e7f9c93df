"""`patch check`, `apply` and `revert`: all files of a tree, or none where one is refused."""

import ast
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..config import is_utf8, not_utf8
from ..errors import ConfigError, MismatchError
from . import line, record
from .entrypoints import CHATLEARN, ENGINE, PRETRAIN, entrypoints, is_named_like_one, uses_megatron
from .line import Inserted, NoPlace, has_line, insert, parse, take_out
from .record import Patched, digest
from .tree import Source, read_inside, sources
from .writing import Change, alone, write

NOT_PATCHED, PATCHED, BY_HAND, CHANGED, REFUSED = "not patched", "patched", "by hand", "changed", "refused"
RESTORED, GONE = "restored", "gone"
LINES = {PRETRAIN: line.AUTO, CHATLEARN: line.CHATLEARN}


class State(NamedTuple):
    """One file, as `check` finds it."""

    path: PurePosixPath
    kind: str
    state: str
    remark: str = ""
    content: bytes = b""
    patch: Inserted | None = None  # what `apply` would make of it


def check(root: Path, skipped: Collection[str] = ()) -> list[State]:
    """Every entrypoint below `root`, and every file that is refused; changes nothing.

    Args:
        skipped: paths below `root` that are none of our business.

    Raises:
        ConfigError: `root` is no folder, cannot be read, or holds no entrypoint; or `skipped` names no file of it.
        DamagedError: The record is not one of ours.
    """
    _check_arguments(root, skipped)
    try:
        found = list(sources(root, skipped))
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be read: {error.strerror}; repair access, or --skip it") from error
    states = _states(found, record.read(root))
    if not states:
        raise ConfigError(
            f"{root} holds no entrypoint: no file that calls Megatron's pretrain(), and no package chatlearn; name "
            f"the root of a source tree, or write `{line.AUTO}` into your script by hand"
        )
    return states


def apply(root: Path, skipped: Collection[str] = ()) -> list[State]:
    """Put our line into each entrypoint below `root` that lacks it; returns what was found before.

    The record is written first, so that whoever dies on the way leaves a tree that `apply` completes and `revert`
    restores. Modes, owners and line ends stay.

    Raises:
        ConfigError: As for `check`, or a file could not be written: then those before it are as they were.
        MismatchError: A file is refused. Nothing was changed.
    """
    _check_arguments(root, skipped)
    with alone(root):
        return _apply(root, skipped)


def _apply(root: Path, skipped: Collection[str]) -> list[State]:
    states = check(root, skipped)
    _refuse([one for one in states if one.state in (REFUSED, CHANGED)], "patched")
    patches = {one.path: (one.content, one.patch) for one in states if one.patch}
    before = record.read(root)
    made = {path: _patched(path, content, patch) for path, (content, patch) in patches.items()}
    kept = {path: entry for path, entry in before.items() if path not in made and (root / path).exists()}
    changes = [Change(path, content, patch.content) for path, (content, patch) in patches.items()]
    write(root, changes, first=made | kept, last=made | kept, on_failure=before)
    return states


def revert(root: Path) -> list[State]:
    """Take our line out of every file of the record below `root`, to the byte, and then remove the record.

    Lines that were written by hand stay. Without a record there is nothing to do.

    Raises:
        MismatchError: A file was changed since it was patched. Nothing was changed.
        ConfigError: A file could not be written: then those before it are as they were.
    """
    _check_arguments(root, ())
    with alone(root):
        return _revert(root)


def _revert(root: Path) -> list[State]:
    before = record.read(root)
    states, changes = [], []
    for path, entry in before.items():
        state, change = _restored(root, path, entry)
        states.append(state)
        changes.extend([change] if change else [])
    _refuse([one for one in states if one.state in (REFUSED, CHANGED)], "restored")
    write(root, changes, first=before, last={}, on_failure=before)
    return states


def _check_arguments(root: Path, skipped: Collection[str]) -> None:
    if not root.is_dir():
        raise ConfigError(f"{str(root)!r} is no folder; name the root of a source tree of Megatron-LM or ChatLearn")
    for name in skipped:
        if not (root / name).is_file():
            raise ConfigError(f"--skip {name} names no file below {root}; write its path as `check` prints it")


def _states(found: list[Source], before: Mapping[PurePosixPath, Patched]) -> list[State]:
    trees, refused = {}, {}
    for source in found:
        try:
            trees[source.path] = parse(source.content)
        except NoPlace as error:
            if is_named_like_one(source.path):
                refused[source.path] = str(error)
    kinds = entrypoints(trees)
    states = []
    for source in found:
        path = source.path
        if path in refused:
            states.append(State(path, "", REFUSED, refused[path]))
        elif path in kinds:
            if kinds[path] != ENGINE:
                states.append(_state(source, kinds[path], trees[path], before.get(path)))
            elif CHATLEARN not in kinds.values():
                states.append(State(path, ENGINE, REFUSED, f"{_WITHOUT_CHATLEARN}, or --skip {path}"))
        elif is_named_like_one(path) and uses_megatron(trees[path]):
            remark = f"it imports Megatron and does not call its pretrain(); --skip {path} leaves it alone"
            states.append(State(path, "", REFUSED, remark))
    return states


def _state(source: Source, kind: str, tree: ast.Module, entry: Patched | None) -> State:
    path, content = source.path, source.content
    if source.leads_to:
        remark = f"it is a symbolic link to {source.leads_to}, outside of the folder; patch that tree, or --skip {path}"
        return State(path, kind, REFUSED, remark)
    if not is_utf8(str(path)):
        return State(path, kind, REFUSED, f"its name is {not_utf8()}")
    has = has_line(tree, LINES[kind])
    if has and entry is None:
        return State(path, kind, BY_HAND, "its own line is left alone")
    if has:
        assert entry is not None
        if digest(content) == entry.after:
            return State(path, kind, PATCHED)
        return State(path, kind, CHANGED, _WHAT_TO_DO)
    try:
        return State(path, kind, NOT_PATCHED, content=content, patch=insert(content, tree, LINES[kind]))
    except NoPlace as error:
        return State(path, kind, REFUSED, str(error))


_WHAT_TO_DO = "it was changed since it was patched; undo that change, or take our line out of it by hand"
_WITHOUT_CHATLEARN = (
    "it starts an engine of ChatLearn, whose package is not below this folder and is what must be patched, since "
    "trainers do not import this file; name the root of ChatLearn, or write by hand into the __init__.py of the "
    f"package that holds your models: {line.CHATLEARN}"
)


def _restored(root: Path, path: PurePosixPath, entry: Patched) -> tuple[State, Change | None]:
    """What `revert` makes of a file of the record."""
    try:
        content = read_inside(root, path)
    except FileNotFoundError:
        return State(path, "", GONE, "it is no longer there"), None
    except OSError as error:
        return State(path, "", REFUSED, f"it cannot be read: {error.strerror}"), None
    if digest(content) == entry.before:
        return State(path, "", RESTORED, "it was restored already"), None
    without = take_out(content, entry.offset, entry.length)
    if digest(content) == entry.after and without is not None and digest(without) == entry.before:
        return State(path, "", RESTORED), Change(path, content, without)
    if b"megatron_resume" not in content:
        return State(path, "", RESTORED, "it was changed, and our line is no longer in it"), None
    return State(path, "", CHANGED, _WHAT_TO_DO), None


def _refuse(states: list[State], verb: str) -> None:
    if states:
        lines = "\n".join(f"  {one.path}: {one.remark}" for one in states)
        raise MismatchError(f"nothing was {verb}, since {len(states)} of the files cannot be:\n{lines}")


def _patched(path: PurePosixPath, content: bytes, patch: Inserted) -> Patched:
    return Patched(
        path=str(path),
        offset=patch.offset,
        length=patch.length,
        before=digest(content),
        after=digest(patch.content),
    )
