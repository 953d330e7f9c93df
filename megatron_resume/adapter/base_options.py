"""Say which typed options a resume goes without, before anything is loaded."""

import logging
import os
from pathlib import Path
from typing import Any

from msgspec import UNSET

from ..checkpoint.folder import ResumePoint, read_folder
from ..checkpoint.launch_key import launch_key
from ..errors import ConfigError
from ..resume.base_options import Ignored, flag, ignored, of_first_start
from ..resume.choose import was_part_of
from ..resume.recorded import Arguments, plain
from ..resume.sealed import as_recorded
from . import ranks
from .sealing import key_for_comparing
from .session import Session

logger = logging.getLogger("megatron_resume")


def first_options(role: str, point: ResumePoint) -> Arguments | None:
    """The options that chose what to load at the first start of the job; None if the point does not tell."""
    arguments = point.receipts[role].arguments
    return None if arguments is UNSET else of_first_start(arguments)


def tell_of_ignored(current: Session, role: str, args: Any) -> None:
    """Name the options of `role` that were typed in vain, on rank 0, which decides; once, before the load.

    Args:
        args: of the role; if a resume has changed them already, what they were before counts.

    Raises:
        ConfigError: A new --ckpt-step asks for another iteration of the job's own folder.
    """
    if current.resumes is None or ranks.rank() != 0:
        return
    point = current.resumes.point
    now = plain({**vars(args), **current.given.get(role, {})})
    given = {name: now[name] for name in current.overrides(role) if name in now}
    found = ignored(given, _unsealed(first_options(role, point), now, current.root), role, point)
    if found.asks_for is not None and not _was_started_before(current):
        raise ConfigError(
            f"--ckpt-step {found.asks_for} was typed, but {role} continues from {point.name}, the newest resume point; "
            f"to go back, type --load-data-checkpoint-iteration {found.asks_for} instead of --ckpt-step"
        )
    _log(found, role, point)


def _unsealed(first: Arguments | None, now: Arguments, root: Path) -> Arguments | None:
    """`first` with the values of `now` wherever only a digest is left of the same."""
    if first is None:
        return None
    alike = as_recorded(now, first, key_for_comparing(root))
    return {name: now[name] if name in now and alike.get(name) == value else value for name, value in first.items()}


def _was_started_before(current: Session) -> bool:
    """Whether a launcher has restarted this launch: its command is as it was when it began."""
    folder, launch = read_folder(current.root), launch_key(os.environ)
    return any(was_part_of(folder, number, launch) for number in folder.starts)


def _log(found: Ignored, role: str, point: ResumePoint) -> None:
    if found.of_base:
        options = ", ".join(map(flag, found.of_base))
        logger.info("%s continues from %s; %s chose what its training began from", role, point.name, options)
    if found.new:
        instead = "; ".join(f"{flag(name)} ({what})" for name, what in found.new.items())
        logger.warning("%s continues from %s, so these options are not followed: %s", role, point.name, instead)
