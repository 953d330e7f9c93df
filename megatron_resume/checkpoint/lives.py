"""The lives of a job, newest first: how each ended, and what it had come to."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from ..errors import STOPPED, DamagedError, UnreadableError
from ..roles import TRAINED
from .attempts import attempt_numbers, has_started
from .endings import lease_of, process_ends
from .events import Committed, Failed, Stopped, events_path, read_events
from .failures import FAILURES, Failure, failures_path, read_failures
from .layout import PointName
from .leases import Lease
from .records import Record, decode, read_bytes
from .storage import is_link, names_in, tells_of_silence

NEW_BUDGET = "new_budget.json"
NEW_BUDGET_VARIABLE = "MEGATRON_RESUME_NEW_BUDGET"  # names the launch that is to count anew
MAX_LIVES = 10_000  # without an attempt
# Not SIGABRT, by which NCCL's watchdog ends a rank that lost its peer, nor SIGBUS, as of a full /dev/shm.
_CRASHES = ("SIGSEGV", "SIGFPE", "SIGILL")
_OPTIONS = (78, 203)  # exit codes
_SHOWN = 300  # characters of a message
_MEMORY = ("MemoryError", "OutOfMemoryError")
_LOST_PEER = ("DistBackendError", "DistNetworkError", "ConnectionResetError", "BrokenPipeError")
_OF_A_LOST_PEER = (
    *("reset by peer", "closed by peer", "Broken pipe", "remote process exited"),  # gloo, NCCL, the store
    "killed by signal: Terminated",  # a data worker, by a launcher that ends its rank
)


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
    """Newest first, each read when it is asked for. Never raises for what cannot be read."""
    without = _without_attempt(root)
    for number in reversed([0, *attempt_numbers(root)]):
        yield from without.pop(number, ())
        if number and _has_started(root, number):
            yield _life(root, number)


def iteration_reached(root: Path, number: int) -> int | None:
    """What training of attempt `number` had come to, as far as its leases and the ranks that failed tell."""
    return _reached(_leases(root, number), read_failures(failures_path(root, number, "")))


def cause_of(failures: list[Failure]) -> Failure | None:
    """The one that the others follow from: neither one that lost its peer began it, nor one that a launcher ended."""
    failures = [one for one in failures if one.how != "stopped"]
    first = min(failures, key=_follows, default=None)  # of those that follow from nothing the earliest
    if first is None or first.how != "hang":
        return first
    return min((one for one in failures if one.how == "hang"), key=lambda one: one.time_s - one.silent_s)


def _follows(failure: Failure) -> int:
    """How surely this failure is the consequence of another, from 0 on."""
    return 2 if failure.signal == "SIGTERM" else int(_lost_its_peer(failure))


def _lost_its_peer(failure: Failure) -> bool:
    """Such a rank may record its end before the watchdog of the process that died has seen that."""
    return failure.error in _LOST_PEER or any(words in failure.message for words in _OF_A_LOST_PEER)


def failed_loads(root: Path) -> dict[PointName, str]:
    """Points that could not be loaded, and how: in the newest attempts, back to the first that failed otherwise."""
    found: dict[PointName, str] = {}
    for number in reversed(attempt_numbers(root)):
        if _has_started(root, number):
            cause = cause_of(read_failures(failures_path(root, number, "")))
            if cause is None or cause.loading is None or not _is_of_the_point(cause):
                break
            what = f"with {cause.error}: {cause.message[:_SHOWN]}" if cause.error else f"by {cause.signal}"
            found.setdefault(cause.loading, f"loading it failed in attempt {number} {what}")
    return found


def _is_of_the_point(cause: Failure) -> bool:
    """Whether the point may be what ended its load, not a death elsewhere, the storage, lack of memory, an option."""
    if cause.how == "killed":
        return cause.signal in _CRASHES
    if cause.how != "error" or _lost_its_peer(cause) or tells_of_silence(cause.message):
        return False
    return cause.exit_code not in _OPTIONS and cause.error not in _MEMORY


def _has_started(root: Path, number: int) -> bool:
    """Also where the storage does not say: then others say how it ended."""
    try:
        return has_started(root, number)
    except UnreadableError:
        return True


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
        return [] if is_link(path) else [path / name for name in names_in(path)[:MAX_LIVES]]
    except UnreadableError:
        return []


def _new_budget(folder: Path) -> NewBudget | None:
    try:
        return decode(read_bytes(folder / NEW_BUDGET, NewBudget.max_bytes), NewBudget, NEW_BUDGET)
    except (DamagedError, UnreadableError):
        return None


def _life(root: Path, number: int) -> Life:
    ends = process_ends(root, number, TRAINED)
    failures = read_failures(failures_path(root, number, ""))
    stopped = any(one.how == "stopped" for one in failures)  # by itself, with nothing to lose; what others did follows
    cause = None if stopped else cause_of(failures)
    leases = _leases(root, number)
    said = next((end.event for end in ends if isinstance(end.event, Failed | Stopped)), None)
    return Life(
        attempt=number,
        state="stopped" if stopped else _state({end.state for end in ends}, cause),
        job=leases[0].holder.job if leases else cause.job if cause else "",
        cause=cause,
        ending=Stopped(reason="SIGTERM", exit_code=STOPPED) if stopped and not isinstance(said, Stopped) else said,
        commits=max(_commits(root, number, role) for role in TRAINED),
        iteration=_reached(leases, failures),
        time_s=min((one.time_s for one in failures), default=None),
    )


def _leases(root: Path, number: int) -> list[Lease]:
    return [lease for role in TRAINED if (lease := lease_of(root, number, role)) is not None]


def _reached(leases: list[Lease], failures: list[Failure]) -> int | None:
    return max([lease.iteration for lease in leases] + [failure.iteration for failure in failures], default=None)


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
