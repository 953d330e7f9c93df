"""When things happened in an attempt, as far as its files tell. For people: nothing is decided by it."""

from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import msgspec

from ..errors import UnreadableError
from ..roles import TRAINED
from .endings import lease_of
from .events import Committed, Ending, Event, Trained, events_path, read_events
from .leases import lease_path
from .records import MAX_NUMBER, Start
from .storage import stat_of

MAX_S = 253_402_300_799.0  # the last second that a calendar has
SLOW_S, SLOW = 60.0, 0.05  # how much later than by its count a lease may have been renewed


class Commit(NamedTuple):
    """A point that became visible, whether or not it is still there."""

    iteration: int
    time_s: float | None
    saved_s: float | None  # the end of the save, from where on work was not in it


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds since 1970 by the clocks of the attempt's hosts, to about a second; None where nothing tells.

    Attributes:
        began_s: the attempt had its number and its point.
        trained_s: its first train step was done.
        commits: by iteration, each once.
        ended_s: its process said that it ends.
        seen_s: its last sign of life: the last renewal of its lease, or its last event.
    """

    began_s: float | None = None
    trained_s: float | None = None
    commits: tuple[Commit, ...] = ()
    ended_s: float | None = None
    seen_s: float | None = None


def times(root: Path, number: int, start: Start | None) -> Times:
    """Of attempt `number`, which began as `start` says, if that can be read. Never raises for what is damaged."""
    events = [event for role in TRAINED for event in read_events(events_path(root, number, role)).events]
    began_s = seconds(start.created) if start else None
    renewed = [] if start is None or began_s is None else _renewals(root, start, began_s)
    told = [time_s for event in events if (time_s := seconds(event.time)) is not None]
    return Times(
        began_s=began_s,
        trained_s=_first(events, Trained),
        commits=_commits(events),
        ended_s=max((s for event in events if isinstance(event, Ending) and (s := seconds(event.time))), default=None),
        seen_s=max([*told, *renewed], default=None),
    )


def seconds(time: str) -> float | None:
    """Since 1970, of a time in ISO 8601; None for what is none, or lies outside of the calendar."""
    try:
        read = datetime.fromisoformat(time)
        since = (read if read.tzinfo else read.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, OverflowError):
        return None
    return since if 0 <= since <= MAX_S else None


def _renewals(root: Path, start: Start, began_s: float) -> list[float]:
    """When each lease was renewed last. Its count alone tells it a little too early, since a renewal takes time; the
    time of the file is better, if it fits: it is gone when the folder was copied."""
    lease_time_s = start.config.get("resume_lease_time")
    every_s = lease_time_s / 3 if isinstance(lease_time_s, int) and 0 < lease_time_s < MAX_S else 0.0
    found = []
    for role in TRAINED:
        lease = lease_of(root, start.attempt, role)
        if lease is not None:
            counted_s = max(0, min(lease.counter, int(MAX_S))) * every_s
            written_s = _written_s(lease_path(root, start.attempt, role))
            fits = 0 <= written_s - began_s - counted_s <= SLOW_S + SLOW * counted_s
            found.append(written_s if fits else min(MAX_S, began_s + counted_s))
    return found


def _written_s(path: Path) -> float:
    try:
        found = stat_of(path)
    except UnreadableError:
        found = None
    return found.st_mtime if found else 0.0


def _first(events: list[Event], kind: type[Event]) -> float | None:
    return min((s for event in events if isinstance(event, kind) and (s := seconds(event.time))), default=None)


def _commits(events: list[Event]) -> tuple[Commit, ...]:
    found: dict[int, Commit] = {}
    for event in events:
        if isinstance(event, Committed) and 0 <= event.iteration < MAX_NUMBER:
            time_s = seconds(event.time)
            saved_s = None if time_s is None else time_s - max(0.0, event.lag_s or 0.0)
            found.setdefault(event.iteration, Commit(event.iteration, time_s, saved_s))
    return tuple(found[iteration] for iteration in sorted(found))
