"""What Megatron's --use-checkpoint-args reads: before the attempt begins, so before its save folder is put in order.

A save that was killed may have left Megatron's tracker empty, on which Megatron ends with status 0, or naming what was
never committed; and the model of a resume point may lie where an abandoned line of attempts has put it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..checkpoint import leftovers
from ..checkpoint.adopted import iteration_in
from ..checkpoint.digests import digests_of
from ..checkpoint.folder import find_model, moved_aside
from ..checkpoint.layout import model_folder
from ..errors import ConfigError
from ..hooks import AnyFunction
from . import naming, non_persistent, ranks, session
from .ending import sys_exit_is_a_failure
from .session import Session


@contextmanager
def found_where_it_lies(current: Session, args: Any) -> Iterator[None]:
    """Meanwhile `args.load` of a resumed role is the folder that holds the point's model, moved aside or not.

    Raises:
        DamagedError: No folder holds it any more; or Megatron gave up reading it.
        ConfigError: It was moved aside under another name.
    """
    load = args.load
    args.load = _folder_now(current, load)
    try:
        leaves_out = current.resumes is not None or current.starts_over
        without = non_persistent.left_out(args, if_=leaves_out)
        with sys_exit_is_a_failure(args), _save_is_known(current, args), without:
            yield
    finally:
        args.load = load


def _folder_now(current: Session, load: str | None) -> str | None:
    if current.resumes is None or load is None:
        return load
    point = current.resumes.point
    name = model_folder(point.iteration)
    for role, save in point.directories.items():
        if str(save) == load and (not (save / name).is_dir() or any(moved_aside(save, name))):
            receipt = point.receipts[role]
            model = point.models.get(role) or find_model(save, receipt, digests_of(current.root, receipt))
            if model.name != name:
                raise ConfigError(
                    f"the model of {role} of {point.name} was moved aside to {model}, where --use-checkpoint-args "
                    f"cannot read: start once without it, or copy that folder to {save / name}"
                )
            return str(model.parent)
    return load


@contextmanager
def _save_is_known(current: Session, args: Any) -> Iterator[None]:
    """Meanwhile a process whose role nobody named yet holds the one that it will turn out to train, if it has one."""
    role = naming.only_role(current, args) if args.save else None
    if role is None:
        yield
        return
    current.save_folders[role] = session.resolved(args.save)
    try:
        yield
    finally:
        del current.save_folders[role]


def wrap_read_metadata(original: AnyFunction) -> AnyFunction:
    """Before torch.distributed is up, the tracker of a trained role's folder says what this start will load."""

    def read_metadata(tracker_filename: str, *args: Any, **kwargs: Any) -> Any:
        current = session.current()
        if current is not None and not current.is_open and not ranks.connected():
            iteration = _to_load(current, os.path.dirname(tracker_filename))
            if iteration is not None:
                return iteration, False
        return original(tracker_filename, *args, **kwargs)

    return read_metadata


def _to_load(current: Session, folder: str) -> int | None:
    """The iteration, -1 for none; None where Megatron's tracker says it."""
    folder, resumes = session.resolved(folder), current.resumes
    if resumes is not None:
        saves = {session.resolved(str(save)) for save in resumes.point.directories.values()}
        return resumes.point.iteration if folder in saves else None
    if folder not in current.save_folders.values():
        return None
    ours = leftovers.iterations_of_job(current.root)
    if not (current.may_adopt or current.starts_over) or iteration_in(Path(folder)) not in ours:
        return None
    return max((i for i in leftovers.saved_iterations(Path(folder)) if i not in ours), default=-1)
