"""What lies in a data checkpoint folder as plain values, in which `--json` prints it."""

import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from megatron_resume.checkpoint.folder import Folder
from megatron_resume.checkpoint.layout import ATTEMPTS, PointName, parse_attempt, parse_point
from megatron_resume.errors import ConfigError, UnreadableError
from megatron_resume.resume.choose import Fresh, Outcome, Resume, head
from megatron_resume.resume.role_set import roles_of
from megatron_resume.roles import TRAINED
from megatron_resume.shown import shown_in_json

MAX_LISTED = 1_000  # names that are looked at where something else than a data checkpoint folder was named
SHOWN_FOLDERS = 3


def root_of(directory: Path) -> Path:
    """The data checkpoint folder that was named on the command line.

    Raises:
        ConfigError: It does not exist; or it is none while a folder in it is one, as where that of the run was named.
    """
    if not os.path.isdir(directory):
        raise ConfigError(
            f"{os.path.abspath(directory)!r} is no folder; name the one given as --data-checkpoint-path (a job that is "
            "to begin there would start fresh)"
        )
    root = Path(os.path.abspath(directory))
    if not _holds_attempts(root) and (found := _folders_of_jobs(root)):
        raise ConfigError(
            f"{str(root)!r} holds no attempt of a job, but {' and '.join(found[:SHOWN_FOLDERS])} in it "
            f"{'does' if len(found) == 1 else 'do'}; type {root / found[0]}, as given as --data-checkpoint-path"
        )
    return root


def _folders_of_jobs(parent: Path) -> list[str]:
    """The folders in `parent`, which is no data checkpoint folder itself, that are; none where it holds points."""
    try:
        with os.scandir(parent) as entries:
            names = [entry.name for entry in islice(entries, MAX_LISTED) if entry.is_dir()]
    except OSError:  # said by whoever reads it next
        return []
    if any(map(parse_point, names)):  # whose attempts somebody deleted
        return []
    return [name for name in sorted(names) if _holds_attempts(parent / name)]


def _holds_attempts(folder: Path) -> bool:
    try:
        with os.scandir(folder / ATTEMPTS) as entries:
            return any(parse_attempt(entry.name) for entry in entries)
    except OSError:
        return False


def as_json(report: dict[str, Any]) -> str:
    return shown_in_json(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())


def text_of(path: Path | str) -> str:
    """`path` as JSON can hold it: names on disk are bytes, and not all of them are UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def trained_roles(folder: Folder) -> tuple[str, ...]:
    """As the newest attempt was configured; nobody asks for them again on the command line."""
    start = head(folder) or (folder.starts[max(folder.starts)] if folder.starts else None)
    return roles_of(start) if start else TRAINED


def point_of(name: PointName) -> dict[str, int]:
    return {"iteration": name.iteration, "attempt": name.attempt}


def whats_of(unread: Iterable[UnreadableError]) -> list[str]:
    """What cannot be read and why, each once."""
    return list(dict.fromkeys(error.what for error in unread))


def outcome_of(outcome: Outcome) -> dict[str, Any]:
    """What a start does: with which point, why, and why not with a newer one."""
    return {
        "outcome": type(outcome).__name__.lower(),
        "reason": outcome.reason,
        "point": point_of(outcome.point.name) if isinstance(outcome, Resume) else None,
        "passed_over": [{**point_of(p.point), "reason": p.reason} for p in outcome.passed_over],
    }


def sentence(report: dict[str, Any]) -> str:
    """What `outcome_of` says, in words."""
    if report["outcome"] == Resume.__name__.lower():
        return f"resume from {PointName(**report['point'])}: {report['reason']}"
    if report["outcome"] == Fresh.__name__.lower():
        return f"fresh: {report['reason']}"
    return f"refused: {report['reason']}"
