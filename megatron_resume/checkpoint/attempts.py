"""Attempts: taking a number that belongs to exactly one life of the job, and saying how it began."""

from pathlib import Path

from ..crash import crash_point
from .atomic import fsync, write_new
from .layout import ATTEMPTS, START, attempt_path, parse_attempt
from .records import Start, encode


def attempt_numbers(root: Path) -> list[int]:
    """The numbers taken so far, ascending."""
    try:
        names = [entry.name for entry in (root / ATTEMPTS).iterdir()]
    except FileNotFoundError:
        return []
    return sorted(number for name in names if (number := parse_attempt(name)) is not None)


def take_number(root: Path) -> int:
    """Make the folder of the next attempt. mkdir succeeds for one caller only."""
    (root / ATTEMPTS).mkdir(parents=True, exist_ok=True)
    while True:
        number = max(attempt_numbers(root), default=0) + 1
        try:
            attempt_path(root, number).mkdir()
        except FileExistsError:
            continue  # somebody else was quicker
        fsync(root / ATTEMPTS)
        crash_point("attempt.numbered")
        return number


def write_start(root: Path, start: Start) -> None:
    """Declare the attempt begun; readers count it from now on."""
    write_new(attempt_path(root, start.attempt) / START, encode(start))
    crash_point("attempt.started")
