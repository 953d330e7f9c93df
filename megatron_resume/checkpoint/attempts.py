"""Attempts: taking a number that belongs to exactly one life of the job, and saying how it began."""

import os
from pathlib import Path

from ..crash import crash_point
from ..errors import ConfigError
from .atomic import make_folder, replace, write_new
from .layout import ATTEMPTS, MAX_ATTEMPT, START, attempt_path, parse_attempt, parse_point
from .plain_files import folder_below
from .records import Start, encode
from .storage import exists, listed


def attempt_numbers(root: Path) -> list[int]:
    """The numbers taken so far, ascending."""
    try:
        names = listed(f"{root}/{ATTEMPTS}")  # not as a Path: each save looks here, and making one takes as long
    except FileNotFoundError:
        return []
    return sorted(number for name in names if (number := parse_attempt(name)) is not None)


def take_number(root: Path) -> int:
    """Make the folder of the next attempt. mkdir succeeds for one caller only."""
    make_folder(root / ATTEMPTS, below=root)
    while True:
        number = max([0, *attempt_numbers(root), *_attempts_with_points(root)]) + 1
        if number > MAX_ATTEMPT:
            raise ConfigError(f"{root} names attempt {MAX_ATTEMPT}, which nobody made; remove what is named so there")
        with folder_below(root, root / ATTEMPTS) as attempts:
            try:
                os.mkdir(attempt_path(root, number).name, dir_fd=attempts)
            except FileExistsError:
                continue  # somebody else was quicker
            os.fsync(attempts)
        crash_point("attempt.numbered")
        return number


def _attempts_with_points(root: Path) -> list[int]:
    """Attempts that saved something, should their own folder have been lost."""
    return [point.attempt for name in listed(root) if (point := parse_point(name)) is not None]


def give_back(root: Path, number: int) -> None:
    """Remove the folder of an attempt that was not begun: a refused start leaves no trace."""
    path = attempt_path(root, number)
    names = listed(path)
    with folder_below(root, path) as folder:
        for name in names:
            os.unlink(name, dir_fd=folder)
    with folder_below(root, path.parent) as attempts:
        os.rmdir(path.name, dir_fd=attempts)


def withdraw(root: Path, number: int) -> None:
    """Take back that an attempt has begun, for a newer one; its number stays used."""
    with folder_below(root, attempt_path(root, number)) as folder:
        os.rename(START, "withdrawn.json", src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)


def has_started(root: Path, number: int) -> bool:
    return exists(attempt_path(root, number) / START)


def started(root: Path) -> set[int]:
    return {number for number in attempt_numbers(root) if has_started(root, number)}


def newest_started(root: Path) -> int:
    """The newest attempt that began; 0 where none did."""
    return next((number for number in reversed(attempt_numbers(root)) if has_started(root, number)), 0)


def newer_than(root: Path, number: int) -> int | None:
    """The newest attempt that began after attempt `number`, which it supersedes."""
    numbers = attempt_numbers(root)
    if numbers[-1:] <= [number]:  # as every save of a healthy job finds it
        return None
    return max((other for other in numbers if other > number and has_started(root, other)), default=None)


def amend_start(root: Path, start: Start) -> None:
    """Say once more how the attempt began, before it trains. Call where it was begun."""
    replace(attempt_path(root, start.attempt) / START, encode(start), below=root)


def write_start(root: Path, start: Start) -> None:
    """Declare the attempt begun; readers count it from now on."""
    write_new(attempt_path(root, start.attempt) / START, encode(start), below=root)
    crash_point("attempt.begun")
