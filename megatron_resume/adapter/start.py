"""Begin an attempt: rank 0 decides, takes a number, and puts the save folders in order."""

import logging
import os
import secrets
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from ..checkpoint import attempts, leftovers
from ..checkpoint.folder import Folder, read_folder, read_point
from ..checkpoint.launch_key import launch_key
from ..checkpoint.records import Launch, Start
from ..config import ResumeConfig
from ..errors import ConfigError, DamagedError, RejoinError, ResumeError
from ..resume.choose import Fresh, Outcome, Refused, Request, Resume, choose

logger = logging.getLogger("megatron_resume")

_PACKAGES = ("torch", "megatron-core", "transformer-engine", "apex", "megatron-resume")


def decide(root: Path, config: ResumeConfig, launch: Launch) -> tuple[Folder, Outcome]:
    """What a start on `root` does now. Changes nothing on disk."""
    request = Request(iteration=config.load_data_checkpoint_iteration, fresh=not config.enable_resume_training)
    folder = read_folder(root)
    outcome = choose(folder, request, launch, lambda name: read_point(root, name, config.trained_roles))
    return folder, outcome


def refusal(outcome: Refused) -> ResumeError:
    """The error that ends a refused start, with every point that was passed over."""
    kind = DamagedError if outcome.damaged else ConfigError
    lines = [f"start refused: {outcome.reason}", *(f"  {passed}" for passed in outcome.passed_over)]
    return kind("\n".join(lines))


def accepted(outcome: Outcome) -> Fresh | Resume:
    """`outcome`, or its refusal raised."""
    if isinstance(outcome, Refused):
        raise refusal(outcome)
    return outcome


def open_attempt(root: Path, config: ResumeConfig) -> tuple[Fresh | Resume, Start]:
    """Take an attempt number and declare the attempt begun. On rank 0 only.

    Raises:
        ResumeError: The start is refused (nothing on disk was changed), or another attempt began meanwhile.
    """
    launch = launch_key(os.environ)
    accepted(decide(root, config, launch)[1])  # a refused start leaves no trace
    try:
        root.mkdir(parents=True, exist_ok=True)
        number = attempts.take_number(root)
    except OSError as error:
        raise ConfigError(
            f"data_checkpoint_path {str(root)!r} cannot be written: {error.strerror}; "
            "name a folder that every node can read and write"
        ) from error
    folder, outcome = decide(root, config, launch)  # again: what was committed until we had our number counts
    start = _start(number, accepted(outcome), folder, config, launch)
    attempts.write_start(root, start)
    if attempts.attempt_numbers(root)[-1] > number:
        raise RejoinError(f"attempt {number} began while a newer one did; restart to join it")
    return accepted(outcome), start


def _start(number: int, outcome: Fresh | Resume, folder: Folder, config: ResumeConfig, launch: Launch) -> Start:
    parent = outcome.point.name if isinstance(outcome, Resume) else None
    ancestry: tuple[int, ...] = ()
    if parent is not None:
        before = folder.starts.get(parent.attempt)
        ancestry = (parent.attempt, *(before.ancestry if before else ()))
    return Start(
        attempt=number,
        nonce=secrets.token_hex(16),
        outcome="resume" if isinstance(outcome, Resume) else "fresh",
        parent=parent,
        ancestry=ancestry,
        requested_iteration=config.load_data_checkpoint_iteration,
        requested_fresh=isinstance(outcome, Fresh) and outcome.requested,
        launch=launch,
        versions=versions(),
        config=msgspec.to_builtins(config),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def versions() -> dict[str, str]:
    """Installed versions of what a checkpoint depends on."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def clear_save_folders(attempt: int, outcome: Resume) -> None:
    """Before a resumed attempt loads: nothing beyond the point stays in a trained role's save folder."""
    for role, directory in outcome.point.directories.items():
        moved = leftovers.move_away(directory, attempt=attempt, beyond=outcome.point.iteration)
        if moved:
            logger.info(
                "%s: moved iterations %s, left by an earlier attempt, to %s",
                role,
                ", ".join(map(str, moved)),
                leftovers.abandoned(directory, attempt),
            )
        leftovers.write_tracker(directory, outcome.point.iteration)


def announce(outcome: Fresh | Resume, attempt: int) -> None:
    """Say what this start does and why: one INFO line, and one for each newer point not used."""
    if isinstance(outcome, Resume):
        progress = outcome.point.data.progress
        logger.info(
            "attempt %d resumes from %s (next episode %d, %d samples consumed): %s",
            attempt,
            outcome.point.name,
            progress.episode,
            progress.consumed_samples,
            outcome.reason,
        )
    else:
        logger.log(
            logging.WARNING if outcome.requested else logging.INFO,
            "attempt %d starts fresh: %s",
            attempt,
            outcome.reason,
        )
    for passed in outcome.passed_over:
        logger.info("%s", passed)


def describe(outcome: Fresh | Resume) -> dict[str, Any]:
    """The part of a decision that all ranks must share."""
    if isinstance(outcome, Resume):
        return {"resume": [outcome.point.name, outcome.point.data.nonce]}
    return {"fresh": outcome.requested}
