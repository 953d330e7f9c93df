"""The lives of a job, newest first: how each ended, and what it had come to."""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ..errors import DamagedError
from ..roles import TRAINED
from .attempts import attempt_numbers, has_started
from .endings import process_ends
from .events import Committed, Failed, Stopped, events_path, read_events
from .failures import FAILURES, Failure, failures_path, read_failures
from .leases import read_lease
from .records import Record, decode, read_bytes

NEW_BUDGET = "new_budget.json"
MAX_LIVES = 10_000  # without an attempt


class NewBudget(Record, frozen=True, kw_only=True):
    """Somebody said that restarts are to be counted from here on: `failures/<life>/new_budget.json`."""

    after: int  # newest attempt at that time
    time_s: float  # since 1970


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """One life of the job.

    Attributes:
        attempt: 0 for one that ended before its attempt had begun.
        state: "finished", "stopped", "failed", "killed" (nobody recorded how), "running", or "new budget".
        job: launch key, the same over the restarts of one launch.
        cause: the record of the rank that failed first, where there is one.
        ending: what the process that began the attempt said of its own end.
        commits: resume points that it committed.
        iteration: what training had come to; None where nothing tells.
        time_s: since 1970, of the end, where a rank recorded it.
    """

    attempt: int
    state: str
    job: str = ""
    cause: Failure | None = None
    ending: Failed | Stopped | None = None
    commits: int = 0
    iteration: int | None = None
    time_s: float | None = None


def lives(root: Path) -> Iterator[Life]:
    """Newest first, each read when it is asked for. Never raises for what is damaged."""
    without = _without_attempt(root)
    for number in reversed([0, *attempt_numbers(root)]):
        yield from without.pop(number, ())
        if number and has_started(root, number):
            yield _life(root, number)


def cause_of(failures: list[Failure]) -> Failure | None:
    """The one that the others follow from: what a launcher ended with SIGTERM did not begin it."""
    first = next((one for one in failures if one.signal != "SIGTERM"), next(iter(failures), None))
    if first is None or first.how != "hang":
        return first
    return min((one for one in failures if one.how == "hang"), key=lambda one: one.time_s - one.silent_s)


def _without_attempt(root: Path) -> dict[int, list[Life]]:
    """By the newest attempt before them, each list newest first."""
    found: dict[int, list[tuple[float, Life]]] = {}
    for path in _folders(root / FAILURES):
        cause = cause_of(read_failures(path))
        if cause is not None:
            life = Life(
                attempt=0,
                state="failed",
                job=cause.job,
                cause=cause,
                iteration=cause.iteration,
                time_s=cause.time_s,
            )
            found.setdefault(cause.after, []).append((cause.time_s, life))
        elif (budget := _new_budget(path)) is not None:
            found.setdefault(budget.after, []).append((budget.time_s, _anew(budget)))
    return {after: [life for _, life in sorted(of, key=lambda one: -one[0])] for after, of in found.items()}


def _anew(budget: NewBudget) -> Life:
    return Life(attempt=0, state="new budget", time_s=budget.time_s)


def _folders(path: Path) -> list[Path]:
    try:
        return [] if path.is_symlink() else [path / name for name in os.listdir(path)[:MAX_LIVES]]
    except OSError:
        return []


def _new_budget(folder: Path) -> NewBudget | None:
    try:
        return decode(read_bytes(folder / NEW_BUDGET, NewBudget.max_bytes), NewBudget, NEW_BUDGET)
    except (DamagedError, OSError):
        return None


def _life(root: Path, number: int) -> Life:
    ends = process_ends(root, number, TRAINED)
    cause = cause_of(read_failures(failures_path(root, number, "")))
    leases = [lease for role in TRAINED if (lease := read_lease(root, number, role)) is not None]
    reached = [lease.iteration for lease in leases] + ([cause.iteration] if cause else [])
    return Life(
        attempt=number,
        state=_state({end.state for end in ends}, cause),
        job=leases[0].holder.job if leases else cause.job if cause else "",
        cause=cause,
        ending=next((end.event for end in ends if isinstance(end.event, Failed | Stopped)), None),
        commits=max(_commits(root, number, role) for role in TRAINED),
        iteration=max(reached, default=None),
        time_s=cause.time_s if cause else None,
    )


def _state(states: set[str], cause: Failure | None) -> str:
    if "running" in states:
        return "running"
    if cause is not None and "stopped" not in states:
        return "failed"
    return next((state for state in ("failed", "stopped", "killed", "unknown") if state in states), "finished").replace(
        "unknown", "killed"
    )


def _commits(root: Path, number: int, role: str) -> int:
    return sum(isinstance(event, Committed) for event in read_events(events_path(root, number, role)).events)
