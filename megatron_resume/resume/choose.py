"""Which of the three outcomes a start has: fresh, resume or refused. Pure: reads its arguments only."""

from collections.abc import Callable, Iterator

import msgspec

from ..checkpoint.folder import Folder, ResumePoint
from ..checkpoint.layout import PointName
from ..checkpoint.records import Launch, Start
from ..errors import DamagedError


class Request(msgspec.Struct, frozen=True):
    """What the person who starts the job asks for."""

    iteration: int | None = None  # roll back to the point of this iteration
    fresh: bool = False  # resuming is switched off


class PassedOver(msgspec.Struct, frozen=True):
    """A newer point that this start does not use."""

    point: PointName
    reason: str

    def __str__(self) -> str:
        return f"{self.point} was passed over: {self.reason}"


class Fresh(msgspec.Struct, frozen=True):
    reason: str
    passed_over: tuple[PassedOver, ...] = ()
    requested: bool = False


class Resume(msgspec.Struct, frozen=True):
    point: ResumePoint
    reason: str
    passed_over: tuple[PassedOver, ...] = ()


class Refused(msgspec.Struct, frozen=True):
    """No start: `damaged` tells damage (exit code 65) from a request that cannot be met (78)."""

    reason: str
    passed_over: tuple[PassedOver, ...] = ()
    damaged: bool = False


Outcome = Fresh | Resume | Refused
ReadPoint = Callable[[PointName], ResumePoint]


def head(folder: Folder) -> Start | None:
    """The newest started attempt, without those that began fresh unasked and never committed."""
    committed = {point.attempt for point in folder.committed}
    for number in sorted(folder.starts, reverse=True):
        start = folder.starts[number]
        unasked = start.outcome == "fresh" and not start.requested_fresh
        if not unasked or number in committed:
            return start
    return None


def live_line(folder: Folder, start: Start | None) -> Iterator[PointName]:
    """Points of `start`, then those of its parent's line up to the parent point, newest first.

    Committed or not: what was never committed is there to be passed over with its reason.
    """
    newest_allowed: int | None = None
    seen: set[int] = set()
    while start is not None and start.attempt not in seen:
        seen.add(start.attempt)  # a forged loop of parents must not hang the start
        own = (point for point in folder.points if point.attempt == start.attempt)
        for point in sorted(own, reverse=True):
            if newest_allowed is None or point.iteration <= newest_allowed:
                yield point
        if start.parent is None:
            return
        newest_allowed = start.parent.iteration
        start = folder.starts.get(start.parent.attempt)


def uncommitted_starts(folder: Folder, start: Start | None) -> Iterator[PointName]:
    """Points of attempts newer than the head: they began fresh and died before their first commit."""
    newest = start.attempt if start else 0
    yield from sorted((point for point in folder.points if point.attempt > newest), reverse=True)


def honoured_by(folder: Folder, request: Request, launch: Launch) -> int | None:
    """The earlier attempt of this same launch that already rolled back as requested."""
    for number, start in folder.starts.items():
        if start.launch.job == launch.job and start.requested_iteration == request.iteration:
            return number
    return None


class _Search:
    """Tries points in order and keeps why each one was not taken."""

    def __init__(self, read: ReadPoint):
        self.read, self.passed_over = read, list[PassedOver]()

    def first_whole(self, points: Iterator[PointName]) -> ResumePoint | None:
        for point in points:
            try:
                return self.read(point)
            except DamagedError as error:
                self.passed_over.append(PassedOver(point, str(error)))
        return None


def choose(folder: Folder, request: Request, launch: Launch, read: ReadPoint) -> Outcome:
    """The outcome of a start on `folder`.

    Args:
        read: gives the point of a name, or raises DamagedError with the reason why it cannot be used.
    """
    if request.fresh:
        commits = len(folder.committed)
        kept = f"; {commits} committed points stay where they are" if commits else ""
        return Fresh(f"resuming is switched off{kept}", requested=True)
    start = head(folder)
    line = list(live_line(folder, start))
    search = _Search(read)
    reason = "it is the newest whole point"
    if request.iteration is not None:
        done_by = honoured_by(folder, request, launch)
        if done_by is None:
            return _rolled_back(request.iteration, line, search)
        reason += f" (attempt {done_by} of this launch rolled back to iteration {request.iteration} already)"
    point = search.first_whole(iter([*uncommitted_starts(folder, start), *line]))
    passed_over = tuple(search.passed_over)
    if point is not None:
        return Resume(point, reason, passed_over)
    return _without_point(folder, start, passed_over)


def _rolled_back(iteration: int, line: list[PointName], search: _Search) -> Outcome:
    wanted = [point for point in line if point.iteration == iteration]
    point = search.first_whole(iter(wanted))
    if point is not None:
        return Resume(point, f"iteration {iteration} was asked for")
    there = ", ".join(str(point.iteration) for point in sorted(set(line))) or "none"
    what = "is not whole" if wanted else "is not on the live line"
    return Refused(
        f"iteration {iteration} was asked for and {what} (saved there: {there}); "
        "name one of these with --load-data-checkpoint-iteration, or leave the option out",
        tuple(search.passed_over),
        damaged=bool(wanted),
    )


def _without_point(folder: Folder, start: Start | None, passed_over: tuple[PassedOver, ...]) -> Outcome:
    if not folder.committed and not folder.damaged_starts:
        return Fresh("nothing was committed yet", passed_over)
    committed = {point.attempt for point in folder.committed}
    if start is not None and start.requested_fresh and start.attempt not in committed:
        return Refused(
            f"attempt {start.attempt} was started fresh on purpose and committed nothing, while older "
            "attempts did; start fresh again with --no-enable-resume-training, or go back with "
            "--load-data-checkpoint-iteration",
            passed_over,
        )
    problems = "; ".join(folder.damaged_starts.values())
    return Refused(
        f"{len(folder.committed)} committed points lie in {folder.root} and none can be used"
        + (f" ({problems})" if problems else "")
        + "; a start from random weights would throw that work away. Restore the files named above from a "
        "backup, or start anew on purpose with --no-enable-resume-training",
        passed_over,
        damaged=True,
    )
