"""The reward of each iteration, from the trace that a script may keep: JSON lines, as the example writes them."""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from megatron_resume.checkpoint.folder import Folder, save_folder
from megatron_resume.checkpoint.layout import point_path, receipt_file
from megatron_resume.checkpoint.plain_files import open_plain
from megatron_resume.checkpoint.records import MAX_NUMBER, Receipt, read
from megatron_resume.errors import ConfigError, DamagedError, UnreadableError
from megatron_resume.roles import TRAINED

TRACE = "trace.jsonl"
MAX_BYTES = 1 << 30
MAX_LINE = 1 << 20


class Step(NamedTuple):
    iteration: int
    attempt: int
    reward: float


class Trace(msgspec.Struct, frozen=True):
    """A trace's iterations in order.

    Attributes:
        kept: of each iteration the newest attempt that ran it.
        lost: what others ran before, for nothing.
        unread: lines that hold no iteration with a reward, such as the half line of a death.
    """

    path: Path
    kept: tuple[Step, ...]
    lost: tuple[Step, ...] = ()
    unread: int = 0


class _Line(msgspec.Struct):
    iteration: int
    reward: float | str  # text: hexadecimal, which keeps every bit
    attempt: int = 0


_line = msgspec.json.Decoder(_Line)


def read_trace(path: Path) -> Trace:
    """The trace in the file `path`.

    Raises:
        OSError: It cannot be read.
        ConfigError: No line of it holds an iteration and a reward.
    """
    newest: dict[int, Step] = {}
    lost: list[Step] = []
    unread = 0
    with open_plain(path) as file:
        for line in _lines(file):
            step = _step(line)
            if step is None:
                unread += 1
                continue
            before = newest.get(step.iteration)
            if before is not None and before.attempt > step.attempt:
                lost.append(step)
                continue
            if before is not None:
                lost.append(before)
            newest[step.iteration] = step
    if not newest:
        raise ConfigError(f'{path} has no line such as {{"iteration": 1, "attempt": 1, "reward": 0.5}}')
    kept = tuple(newest[iteration] for iteration in sorted(newest))
    return Trace(path, kept, tuple(sorted(lost)), unread)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    left = MAX_BYTES
    while left > 0 and (line := file.readline(MAX_LINE)):
        left -= len(line)
        yield line


def _step(line: bytes) -> Step | None:
    try:
        found = _line.decode(line)
        reward = float.fromhex(found.reward) if isinstance(found.reward, str) else found.reward
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, OverflowError):
        return None
    fits = 0 <= found.iteration < MAX_NUMBER and math.isfinite(reward) and abs(reward) < 1e30
    return Step(found.iteration, found.attempt, reward) if fits else None


def find_trace(folder: Folder) -> Path | None:
    """Where the example leaves its trace: beside the data checkpoint folder, or above the save folders."""
    above = [folder.root.parent]
    for save in _save_folders(folder):
        above += [save.parent, save.parent.parent]
    return next((path / TRACE for path in above if (path / TRACE).is_file()), None)


def _save_folders(folder: Folder) -> list[Path]:
    """Of the newest point, as its receipts have them."""
    newest = max(folder.points, key=lambda point: (point.attempt, point.iteration), default=None)
    if newest is None:
        return []
    found = []
    for role in TRAINED:
        path = point_path(folder.root, newest) / receipt_file(role)
        try:
            found.append(save_folder(folder.root, read(path, Receipt)))
        except (DamagedError, UnreadableError):
            continue
    return found


def save_folders(folder: Folder) -> list[str]:
    """The same without links: nothing of ours is to be written there."""
    return [os.path.realpath(path) for path in _save_folders(folder)]
