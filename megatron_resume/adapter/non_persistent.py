"""Megatron's non-persistent checkpoints: a start that leaves a newer one of its job unused says so."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..checkpoint import attempts
from ..checkpoint.layout import TRACKER, model_folder
from ..checkpoint.plain_files import open_plain
from ..resume.choose import Resume
from . import ranks, session
from .session import Session

logger = logging.getLogger("megatron_resume")

_LOCAL = r"iter_(\d+)_"
_SUBFOLDER = "non_persistent"  # Megatron's, of the folder that is loaded from


def tell_of_newer(resume: Resume, role: str, args: Any) -> None:
    """Warn on rank 0 if a non-persistent checkpoint of `role` is newer than the resume point.

    Megatron alone would load it. It is not used: it holds one role, and neither prompts nor tracked state.
    """
    if ranks.rank() != 0:
        return
    newer = _newer(args, str(resume.point.directories[role]), resume.point.iteration)
    if newer is not None:
        logger.warning(
            "%s holds a newer checkpoint of %s and is not used: non-persistent checkpoints hold neither prompts nor "
            "tracked state, so %s continues from %s. To lose less, lower --save-interval",
            newer,
            role,
            role,
            resume.point.name,
        )


@contextmanager
def left_out(args: Any, *, if_: bool = True) -> Iterator[None]:
    """Meanwhile Megatron looks for none: one at or beyond `ckpt_step` would be loaded instead of the resume point."""
    kind = getattr(args, "non_persistent_ckpt_type", None)
    args.non_persistent_ckpt_type = None if if_ else kind
    try:
        yield
    finally:
        args.non_persistent_ckpt_type = kind


def is_of_no_use(current: Session, role: str | None, args: Any) -> bool:
    """Whether this start, which is fresh, is to leave out what an earlier attempt of the job left. Call on every rank.

    That is a start over, or one whose prompts or other role would be of another moment.
    """
    if role is None or current.resumes or getattr(args, "non_persistent_ckpt_type", None) is None:
        return False
    return bool(ranks.from_rank_0([int(ranks.rank() == 0 and _is_left_out(current, role, args))])[0])


def _is_left_out(current: Session, role: str, args: Any) -> bool:
    has_more = current.counts_episodes or current.tracked.objects or len(current.config.trained_roles) > 1
    is_later = bool(attempts.started(current.root) - {current.attempt})
    if not current.starts_over and not (current.may_adopt and has_more and is_later):
        return False
    load = session.resolved(args.load) if args.load else ""
    in_own_folder = bool(getattr(args, "non_persistent_global_ckpt_dir", None)) or load == session.resolved(args.save)
    if args.non_persistent_ckpt_type == "global" and not in_own_folder:
        return False  # that of the model that training begins from
    found = _newer(args, load, 0)
    if found is not None:
        logger.warning(
            "%s holds a checkpoint of %s by an earlier attempt and is not used: this attempt starts fresh, and "
            "non-persistent checkpoints hold neither prompts nor tracked state",
            found,
            role,
        )
    return found is not None


def _newer(args: Any, directory: str, iteration: int) -> str | None:
    """The folder of a newer checkpoint, as Megatron would look for it."""
    kind = getattr(args, "non_persistent_ckpt_type", None)
    if kind == "local":  # each node has its own; only all ranks together know whether it is whole
        local = getattr(args, "non_persistent_local_ckpt_dir", None)
        files = [name for _, _, names in os.walk(local) for name in names] if local else []
        saved = [int(named[1]) for name in files if (named := re.match(_LOCAL, name))]
        return str(local) if max(saved, default=0) > iteration else None
    if kind != "global":
        return None
    folder = getattr(args, "non_persistent_global_ckpt_dir", None) or os.path.join(directory, _SUBFOLDER)
    found = _tracked(folder)
    return os.path.join(folder, model_folder(found)) if found > iteration else None


def _tracked(folder: str) -> int:
    """The iteration that Megatron's tracker names; 0 if there is none that can be read."""
    try:
        with open_plain(Path(folder, TRACKER)) as file:
            text = file.read(32).strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() else 0
