"""Events: what one life of the job says of itself, line by line. People read them; they decide nothing."""

import errno
import os
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from ..crash import crash_point, is_armed
from ..errors import DamagedError, UnreadableError
from ..shown import shown_in_line
from .layout import attempt_path
from .plain_files import folder_below, open_file
from .records import VERSION, Record, read_bytes
from .storage import exists, patience

MAX_BYTES = 16 << 20  # some 150,000 commits in one life


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


class _Event(Record, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    time: str = msgspec.field(default_factory=_now)  # ISO 8601, UTC; for people, never compared


class Committed(_Event, frozen=True, kw_only=True):
    """COMMITTED of this iteration became visible."""

    iteration: int
    lag_s: float | None = None  # seconds since Megatron had finished the save that completed it
    bytes: int | None = None  # of all its models


class Trained(_Event, frozen=True, kw_only=True):
    """The first train step of this life was done: the time from a failure to here is what recovering takes."""


class Pruned(_Event, frozen=True, kw_only=True):
    """Retention removed this point."""

    iteration: int
    attempt: int
    bytes: int  # of models that were deleted with it


class Failed(_Event, frozen=True, kw_only=True):
    """The process ended by an error."""

    error: str  # its class
    message: str
    exit_code: int


class Stopped(_Event, frozen=True, kw_only=True):
    """The process was told to end: by a signal, by its command, or because a newer attempt took the job."""

    reason: str
    exit_code: int
    planned: bool = False  # by its command, at an iteration or after a time


class Finished(_Event, frozen=True, kw_only=True):
    """The process came to its end, with every pending commit written."""


Ending = Failed | Stopped | Finished
Event = Committed | Pruned | Trained | Ending

_line = msgspec.json.Decoder(Event)


class Events(NamedTuple):
    """What an events file holds: its whole lines in order, and what is wrong with the others."""

    events: tuple[Event, ...] = ()
    damage: str | None = None

    @property
    def ending(self) -> Ending | None:
        """How this life ended; None for one that was killed, or still runs."""
        return next((event for event in reversed(self.events) if isinstance(event, Ending)), None)

    @property
    def last_commit(self) -> Committed | None:
        return next((event for event in reversed(self.events) if isinstance(event, Committed)), None)


def events_path(root: Path, attempt: int, role: str) -> Path:
    """The file of the process whose first role in the attempt is `role`; nobody else writes into it."""
    return attempt_path(root, attempt) / f"{role}.events.jsonl"


def append(path: Path, event: Event) -> None:
    """Add one line, durable when this returns. A death on the way may leave a torn last line.

    Raises:
        OSError: It is not written; whole lines before it are.
    """
    kind = str(event.__struct_config__.tag)
    crash_point("event.begin", kind)
    with folder_below(path.parents[2], path.parent) as folder:  # of `events_path`, from its root on
        with open_file(path.name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, "ab", folder) as file:
            size = file.tell()
            try:
                _write(file, msgspec.json.encode(event) + b"\n", kind)
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    file.truncate(size)  # else the next line would continue this one
                raise
        if size == 0:
            os.fsync(folder)
    crash_point("event.end", kind)


def _write(file: BinaryIO, line: bytes, kind: str) -> None:
    if is_armed("event.torn"):
        half = file.write(line[: len(line) // 2])
        crash_point("event.torn", kind)
        line = line[half:]
    if file.write(line) < len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_events(path: Path) -> Events:
    """What stands in an events file, which may be missing, torn, damaged or unreadable: then less stands there."""
    try:
        with patience(0):  # for people, who would have to wait for each
            if not exists(path):
                return Events()
            *lines, _torn = read_bytes(path, MAX_BYTES).split(b"\n")
    except DamagedError as error:
        return Events(damage=str(error))
    except UnreadableError as error:
        return Events(damage=error.what)
    events: list[Event] = []
    damage = None
    for number, line in enumerate(lines, start=1):
        try:
            events.append(_read_line(line))
        except (DamagedError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            damage = damage or f"line {number} of {path} is damaged: {shown_in_line(str(error))}"
    return Events(tuple(events), damage)


def _read_line(line: bytes) -> Event:
    event: Event = _line.decode(line)
    if event.version != VERSION:
        raise DamagedError(f"it has version {event.version}; this release reads version {VERSION}")
    return event
