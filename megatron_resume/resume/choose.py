"""Which of the three outcomes a start has: fresh, resume or refused. Changes nothing, and knows only its arguments."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType

import msgspec

from ..checkpoint.folder import Folder, ResumePoint
from ..checkpoint.layout import PointName
from ..checkpoint.records import Launch, Request, Start
from ..errors import ConfigError, DamagedError, MismatchError, ResumeError, UnreadableError
from ..shown import shown_in_line


class PassedOver(msgspec.Struct, frozen=True):
    """A newer point that this start does not use."""

    point: PointName
    reason: str

    def __str__(self) -> str:
        return f"{self.point} was passed over: {shown_in_line(self.reason)}"


class Fresh(msgspec.Struct, frozen=True):
    """Start from the beginning: `requested`, or because nothing was ever committed."""

    reason: str
    passed_over: tuple[PassedOver, ...] = ()
    requested: bool = False
    start_over: bool = False  # what the job saved before is to be moved aside


class Resume(msgspec.Struct, frozen=True):
    """Continue from `point`."""

    point: ResumePoint
    reason: str
    passed_over: tuple[PassedOver, ...] = ()
    requested: bool = False  # so it is the lineage at once, whatever it left behind


class Refused(msgspec.Struct, frozen=True):
    """No start: `damaged` tells damage (exit code 65) from a request that cannot be met (78).

    `unread` says what cannot be read and may be whole, with the exit code of that.
    """

    reason: str
    passed_over: tuple[PassedOver, ...] = ()
    damaged: bool = False
    unread: UnreadableError | None = None

    @property
    def error(self) -> type[ResumeError]:
        """The class of the error that ends the start."""
        if self.unread is not None:
            return type(self.unread)
        return DamagedError if self.damaged else ConfigError


Outcome = Fresh | Resume | Refused
ReadPoint = Callable[[PointName], ResumePoint]


def head(folder: Folder) -> Start | None:
    """The newest started attempt, without those that began fresh unasked and never committed."""
    for number in sorted(folder.starts, reverse=True):
        start = folder.starts[number]
        unasked = start.outcome == "fresh" and not start.requested.begins_anew
        if not unasked or folder.has_commit(number):
            return start
    return None


def ancestry(folder: Folder, start: Start | None) -> Iterator[Start]:
    """`start`, the attempt that it continued, and so on back to the first.

    Raises UnreadableError on the way where the storage does not say how one of them began.
    """
    seen: set[int] = set()
    while start is not None and start.attempt not in seen:
        seen.add(start.attempt)  # a forged loop of parents must not hang the start
        yield start
        point = folder.goes_on_at(start)
        if point is not None and point.attempt in folder.unread_starts:
            raise folder.unread_starts[point.attempt]
        start = folder.starts.get(point.attempt) if point else None


def live_line(folder: Folder, start: Start | None) -> Iterator[PointName]:
    """Points of `start`, then those of its parent's line up to the parent point, newest first.

    Committed or not, and also when it is gone: all of it is there to be passed over with its reason.
    """
    newest_allowed: int | None = None
    for one in ancestry(folder, start):
        for point in folder.points_of(one.attempt):
            if newest_allowed is None or point.iteration <= newest_allowed:
                yield point
        goes_on_at = folder.goes_on_at(one)
        if goes_on_at is None:
            return
        if not folder.lists(goes_on_at):  # somebody deleted it; retention keeps what a start may need
            yield goes_on_at
        newest_allowed = goes_on_at.iteration
        if goes_on_at.attempt in folder.unread_starts:  # its points are known, and not what it continued
            yield from (p for p in folder.points_of(goes_on_at.attempt) if p.iteration <= newest_allowed)


def lineage_before(folder: Folder, outcome: Fresh | Resume) -> PointName | None:
    """The newest committed point of the lineage that a start with `outcome` leaves; None if it leaves none.

    If it never trains, the lineage goes on there.
    """
    if (isinstance(outcome, Resume) and outcome.requested) or (isinstance(outcome, Fresh) and outcome.start_over):
        return None  # honoured once: as of now, nobody goes on from there
    newest = next(filter(folder.is_committed, live_line(folder, head(folder))), None)
    return None if isinstance(outcome, Resume) and newest == outcome.point.name else newest


def uncommitted_starts(folder: Folder, start: Start | None) -> Iterator[PointName]:
    """Points of attempts newer than the head: they began fresh and died before their first commit."""
    newest = start.attempt if start else 0
    newer = [attempt for attempt in folder.iterations if attempt > newest]
    yield from sorted((point for attempt in newer for point in folder.points_of(attempt)), reverse=True)


def unread_newest(folder: Folder, start: Start | None) -> Iterator[PointName]:
    """Points of attempts newer than the head of which the storage does not say how they began, newest first."""
    newest = start.attempt if start else 0
    for attempt in sorted(folder.unread_starts, reverse=True):
        if attempt > newest:
            yield from folder.points_of(attempt)


def honoured_by(folder: Folder, request: Request, launch: Launch) -> int | None:
    """The earlier attempt of this same launch that already did as requested, where once is enough."""
    for number, start in sorted(folder.starts.items()):
        if request.once and start.requested == request and was_part_of(folder, number, launch):
            return number
    return None


def was_part_of(folder: Folder, attempt: int, launch: Launch) -> bool:
    """Whether `launch`, before its launcher restarted it, opened or joined the attempt.

    Raises UnreadableError where the storage does not say who joined it.
    """
    found = any(
        before.job == launch.job and (before.restart < launch.restart or not launch.counts)
        for before in folder.launches[attempt]
    )
    if not found and attempt in folder.unread_launches:
        raise folder.unread_launches[attempt]
    return found


def continued(folder: Folder, request: Request, launch: Launch) -> Start | None:
    """The attempt whose line a start goes on with; None where that start is fresh for want of a commit, or as asked."""
    done = honoured_by(folder, request, launch) is not None
    if request.begins_anew and not done:
        return None
    start = folder.starts.get(request.attempt) if request.attempt is not None and not done else head(folder)
    if start is not None and start.requested.begins_anew and not folder.has_commit(start.attempt):
        return None
    return start


class _Search:
    """Tries points in order and keeps why each one was not taken."""

    def __init__(self, folder: Folder, read: ReadPoint):
        self.folder, self.read, self.passed_over = folder, read, list[PassedOver]()
        self.reading: PointName | None = None

    def first_whole(self, points: Iterable[PointName]) -> ResumePoint | None:
        for point in points:
            self.reading = point
            # Before it is read: a point that is committed meanwhile must not pass for a damaged one.
            self.folder.is_committed(point)
            try:
                return self.read(point)
            except DamagedError as error:
                self.passed_over.append(PassedOver(point, str(error)))
        return None

    def first_loadable(self, older: Iterable[PointName], failed: ResumePoint, how: str) -> ResumePoint | None:
        """The first whole one of `older`, with `failed` passed over; None, and nothing passed over, without one."""
        before = len(self.passed_over)
        again = f"--load-data-checkpoint-iteration {failed.iteration} --load-data-checkpoint-attempt"
        self.passed_over.append(
            PassedOver(
                failed.name, f"{how}; this start does without it, once (back to it: {again} {failed.name.attempt})"
            )
        )
        try:
            point = self.first_whole(older)
        except (MismatchError, UnreadableError):
            point = None
        if point is None:
            del self.passed_over[before:]
        return point


def choose(
    folder: Folder,
    request: Request,
    launch: Launch,
    read: ReadPoint,
    failed_loads: Mapping[PointName, str] = MappingProxyType({}),
) -> Outcome:
    """The outcome of a start on `folder`.

    The newest whole point is passed over where the last lives could load no other, and an older one is whole. Once:
    where that fails too, it is not the point, and going back on and on would only lose work.

    Args:
        read: gives the point of a name, or raises DamagedError with the reason why it cannot be used, or
            MismatchError when it was whole but lacks a role of this job.
        failed_loads: points that could not be loaded in the last lives, and how that failed.
    """
    search = _Search(folder, read)
    try:
        return _choose(folder, request, launch, search, failed_loads)
    except MismatchError as error:  # an older point would cost work that a changed option saves
        return Refused(str(error), tuple(search.passed_over))
    except UnreadableError as error:  # so would one that the storage only does not give now
        return refused_unread(folder, error, search.reading, tuple(search.passed_over))


def refused_unread(
    folder: Folder, error: UnreadableError, unread: PointName | None = None, passed_over: tuple[PassedOver, ...] = ()
) -> Refused:
    """No start without what cannot be read, of the point `unread` if it is of one; with what to type to do without."""
    told = type(error)(error.what, _way_back(folder, unread))
    return Refused(str(told), passed_over, unread=told)


def _way_back(folder: Folder, unread: PointName | None) -> str:
    """What to type to start without what cannot be read: the newest point that is known to be older."""
    with suppress(UnreadableError, DamagedError):
        start = head(folder)
        for point in itertools.chain(unread_newest(folder, start), live_line(folder, start)):
            with suppress(UnreadableError):
                if (unread is None or point.iteration < unread.iteration) and folder.is_committed(point):
                    return f"--load-data-checkpoint-iteration {point.iteration}"
    return "--load-data-checkpoint-iteration N, and --load-data-checkpoint-attempt A where it is on another line"


def _choose(
    folder: Folder, request: Request, launch: Launch, search: "_Search", failed_loads: Mapping[PointName, str]
) -> Outcome:
    done_by = honoured_by(folder, request, launch)
    if request.once and done_by is None:
        _check_is_not_honoured_unread(folder, launch)
    if request.fresh or (request.start_over and done_by is None):
        return _anew(folder.told()[0], request)
    if request.once and done_by is None:
        return _as_asked(folder, request, search)
    start = head(folder)
    _check_newest_is_read(folder, start)
    points = itertools.chain(uncommitted_starts(folder, start), live_line(folder, start))
    point, reason = search.first_whole(points), "it is the newest whole point"
    if point is not None and set(failed_loads) == {point.name}:
        older = search.first_loadable(points, point, failed_loads[point.name])
        point, reason = (older, "it is the next older whole point") if older else (point, reason)
    passed_over = tuple(search.passed_over)
    if point is None:
        return _without_point(folder, start, launch, passed_over)
    if done_by is not None:
        reason += f" (attempt {done_by} of this launch did as was asked already)"
    return Resume(point, reason, passed_over)


def _check_newest_is_read(folder: Folder, start: Start | None) -> None:
    """Raises UnreadableError where an attempt after the head began and the storage does not say how."""
    newest = max(folder.unread_starts, default=0)
    if newest > (start.attempt if start else 0):
        raise folder.unread_starts[newest]


def _check_is_not_honoured_unread(folder: Folder, launch: Launch) -> None:
    """Raises UnreadableError where this launch began an attempt of which nobody can tell what it was asked for."""
    for number, error in folder.unread_starts.items():
        if was_part_of(folder, number, launch):
            raise error


def _anew(folder: Folder, request: Request) -> Fresh:
    commits = len(folder.committed)
    if request.start_over:
        aside = f"; {commits} committed points are moved aside" if commits else ""
        return Fresh(f"starting over was asked for{aside}", requested=True, start_over=True)
    kept = f"; {commits} committed points stay where they are" if commits else ""
    return Fresh(f"resuming is switched off{kept}", requested=True)


def _as_asked(folder: Folder, request: Request, search: _Search) -> Outcome:
    """The point that was asked for by iteration, by attempt, or by both; refused when it is not there."""
    start = head(folder) if request.attempt is None else folder.starts.get(request.attempt)
    listed, line = set(folder.points), list[PointName]()
    line.extend(unread_newest(folder, start) if request.attempt is None else ())
    with suppress(UnreadableError):  # what was asked for may lie before that
        line.extend(point for point in live_line(folder, start) if point in listed)
    wanted = [point for point in line if request.iteration in (None, point.iteration)]
    what = " of ".join(
        [f"iteration {request.iteration}"] * (request.iteration is not None)
        + [f"the line of attempt {request.attempt}"] * (request.attempt is not None)
    )
    point = search.first_whole(wanted)
    passed_over = tuple(search.passed_over)
    if point is not None:
        return Resume(point, f"{what} was asked for", passed_over, requested=True)
    there = ", ".join(str(point.iteration) for point in sorted(set(line))) or "none"
    attempts = ", ".join(map(str, sorted(folder.starts))) or "none"
    return Refused(
        f"{what} was asked for and {'is not whole' if wanted else 'is not there'} (iterations saved there: {there}; "
        f"attempts: {attempts}); name one of these with --load-data-checkpoint-iteration and "
        "--load-data-checkpoint-attempt, or leave both out",
        passed_over,
        damaged=bool(wanted),
    )


def _without_point(folder: Folder, start: Start | None, launch: Launch, passed_over: tuple[PassedOver, ...]) -> Outcome:
    if not folder.committed and start is not None and start.parent is not None:
        return Refused(
            f"attempt {start.attempt} continued from {start.parent}, but {folder.root} holds no committed point. "
            "Restore its points from a backup, or mount its storage again; or begin anew on purpose: empty each --save,"
            " and type --start-over",
            passed_over,
            damaged=True,
        )
    if not folder.committed and not folder.damaged_starts:
        return Fresh(f"nothing was committed yet in {folder.root}", passed_over)
    begins_anew = start is not None and start.requested.begins_anew and folder.goes_on_at(start) is None
    if start is not None and begins_anew and not folder.has_commit(start.attempt):
        if was_part_of(folder, start.attempt, launch):
            anew = f"attempt {start.attempt} of this launch began anew as was asked, and nothing was committed since"
            return Fresh(anew, passed_over, requested=True, start_over=start.requested.start_over)
        return Refused(
            f"attempt {start.attempt} began anew on purpose and committed nothing, while older attempts did; begin "
            "anew again with --start-over, or go back with --load-data-checkpoint-attempt",
            passed_over,
        )
    problems = "; ".join(folder.damaged_starts.values())
    return Refused(
        f"{len(folder.committed)} committed points lie in {folder.root} and none can be used"
        + (f" ({problems})" if problems else "")
        + "; a start from random weights would throw that work away. Look whether every storage is mounted where it "
        "was, and restore the files named here from a backup; else another line may be whole "
        "(--load-data-checkpoint-attempt). --start-over begins anew on purpose",
        passed_over,
        damaged=True,
    )
