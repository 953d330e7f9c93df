"""The life of a run, told for people: what each attempt came to, what its end cost, and where the time went.

Pure; it decides nothing. A moment of a run belongs to one kind of stretch:

    down     nothing ran, or a start had not come to its attempt yet
    setup    from the begin of an attempt to the end of its first train step
    kept     training whose work the newest attempt stands on
    lost     training whose work is gone: it was done again, or is to be
    silent   a rank made no progress any more, until it was found to hang
"""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from ..checkpoint.layout import PointName
from ..checkpoint.lives import Life
from ..checkpoint.records import MAX_NUMBER, Start
from ..checkpoint.times import MAX_S, Commit, Times
from .budget import is_free, told, told_of_a_rank

KINDS = ("kept", "lost", "silent", "setup", "down")
FAILED = ("failed", "killed", "hung")
FIRST_STEP, FIRST_COMMIT = "first train step", "first commit"
EARLIEST_S = 1_577_836_800.0  # 2020: a clock that is older was not set yet
SKEW_S = 60.0  # between the clocks of hosts
ALIVE = ("running", "unknown")  # with nothing lost so far
COSTLY = (*FAILED, "preempted", "stopped")  # ends after which work may be missing


class Stretch(msgspec.Struct, frozen=True):
    """A part of the run's time."""

    kind: str
    from_s: float
    to_s: float

    @property
    def length_s(self) -> float:
        return self.to_s - self.from_s


class Recovery(msgspec.Struct, frozen=True):
    """How long it took until training went on."""

    length_s: float  # from the end that is recovered from
    until: str  # FIRST_STEP, or FIRST_COMMIT where no step was recorded
    starts: int  # that it took


class Chapter(msgspec.Struct, frozen=True, kw_only=True):
    """One life of the job.

    Attributes:
        attempt: 0 for one that ended before its attempt had begun.
        how: "finished", "running", "preempted", "stopped", "failed", "hung", "killed", "new budget"; "unknown" where it
            runs on another machine, or was killed.
        says: how it ended, in one sentence.
        rank_says: of that the part of the rank that failed first; "" where no rank left a record.
        began_s, trained_s, ended_s: since 1970; None where nothing tells.
        is_end_recorded: else `ended_s` is the last sign of life.
        parent: the point that it continued from; None for a fresh start.
        reached: the iteration that training had come to, as far as is known.
        kept: the iteration that the next attempt continued from, or would.
        lost_iterations: `reached` less `kept`.
        is_timed: its times agree with each other and with the attempts around it; not where a clock was set.
        lost_s: from the save of `kept`, or from the begin where that is older, to the end.
        is_rolled_back: the next attempt went back on request.
        recovery: None where nothing had to be recovered, or training has not gone on yet.
        stretches: of its time, in order.
    """

    attempt: int
    how: str
    says: str
    rank_says: str = ""
    began_s: float | None = None
    trained_s: float | None = None
    ended_s: float | None = None
    is_end_recorded: bool = True
    is_timed: bool = True
    parent: PointName | None = None
    reached: int | None = None
    kept: int | None = None
    lost_iterations: int = 0
    lost_s: float = 0.0
    is_rolled_back: bool = False
    commits: tuple[Commit, ...] = ()
    recovery: Recovery | None = None
    stretches: tuple[Stretch, ...] = ()

    @property
    def from_iteration(self) -> int:
        return self.parent.iteration if self.parent else 0

    @property
    def came_to(self) -> int:
        """The iteration at which it ended, as far as is known."""
        return (self.reached if self.attempt else self.kept) or 0


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """All chapters, oldest first, and what they come to.

    Attributes:
        seconds: of each kind of stretch.
        committed: the newest committed iteration on the line of the newest attempt.
        reached: what the newest attempt had come to.
        lost_iterations: of all chapters.
    """

    chapters: tuple[Chapter, ...]
    seconds: dict[str, float]
    committed: int = 0
    reached: int = 0
    lost_iterations: int = 0

    @property
    def attempts(self) -> list[Chapter]:
        return [chapter for chapter in self.chapters if chapter.attempt]

    @property
    def stretches(self) -> list[Stretch]:
        """The whole run without gaps, times between chapters as "down"."""
        found: list[Stretch] = []
        for chapter in self.attempts:
            if found and chapter.stretches and chapter.stretches[0].from_s > found[-1].to_s:
                found.append(Stretch("down", found[-1].to_s, chapter.stretches[0].from_s))
            found += chapter.stretches
        return found

    @property
    def wall_s(self) -> float:
        return sum(self.seconds.values())

    @property
    def kept_share(self) -> float | None:
        """Of the run's time, what training that counts took; None before there was any."""
        return self.seconds["kept"] / self.wall_s if self.wall_s > 0 else None


def story(
    lives: Iterable[Life],
    starts: Mapping[int, Start],
    times: Mapping[int, Times],
    now_s: float,
    *,
    may_run: bool = False,
) -> Story:
    """Tell of `lives`, newest first, whose attempts began as `starts` say.

    Args:
        now_s: the end of one that runs.
        may_run: nobody can tell from here whether the newest attempt does.
    """
    ordered = list(lives)[::-1]
    if may_run and ordered and ordered[-1].state == "killed" and ordered[-1].cause is None:
        ordered[-1] = msgspec.structs.replace(ordered[-1], state="unknown")
    clock = _Clock(ordered, times, now_s)
    branches = _branches(ordered, starts)
    chapters: list[Chapter] = []
    for at, life in enumerate(ordered):
        after = next((start for one in ordered[at + 1 :] if (start := starts.get(one.attempt))), None)
        chapters.append(_chapter(life, starts.get(life.attempt), after, clock, branches))
    chapters = _recovered(chapters)
    newest = next((one for one in reversed(chapters) if one.attempt), None)
    seconds = dict.fromkeys(KINDS, 0.0)
    found = Story(chapters=tuple(chapters), seconds=seconds)
    for stretch in found.stretches:
        seconds[stretch.kind] += stretch.length_s
    return msgspec.structs.replace(
        found,
        chapters=tuple(_in_place(found.chapters)),
        committed=_newest_commit(newest) if newest else 0,
        reached=(newest.reached or 0) if newest else 0,
        lost_iterations=sum(chapter.lost_iterations for chapter in chapters),
    )


class _Clock:
    """Begin, first train step and end of each attempt, in an order that clocks of several hosts may not have kept."""

    def __init__(self, ordered: list[Life], times: Mapping[int, Times], now_s: float) -> None:
        self.of: dict[int, tuple[float | None, float | None, float | None]] = {}
        self.times = times
        self._now_s = now_s
        self.wrong: set[int] = set()
        attempts = [life for life in ordered if life.attempt]
        begins = [self._began_s(life) for life in attempts]
        self._note_what_is_wrong(attempts, begins)
        for at in range(1, len(begins)):
            before = next((s for s in reversed(begins[:at]) if s is not None), None)
            if begins[at] is not None and before is not None:
                begins[at] = max(begins[at] or 0.0, before)
        following: float | None = None
        for life, began_s in reversed(list(zip(attempts, begins, strict=True))):
            ended_s = self._ended_s(life)
            if following is not None and ended_s is not None:
                ended_s = min(ended_s, following)
            if began_s is not None:
                ended_s = max(ended_s if ended_s is not None else began_s, began_s)
                following = began_s
            self.of[life.attempt] = began_s, self._trained_s(life, began_s, ended_s), ended_s

    def _note_what_is_wrong(self, attempts: list[Life], begins: list[float | None]) -> None:
        """Times before this package was, or after now; an end before its begin; a begin before that of the one before.

        A begin before the end of the one before is none: that one may have gone on for a while.
        """
        before: tuple[int, float] | None = None
        for life, began_s in zip(attempts, begins, strict=True):
            ended_s = self._ended_s(life)
            known = [s for s in (began_s, ended_s) if s is not None]
            is_backwards = bool(known) and known[-1] < known[0] - SKEW_S
            if is_backwards or not all(EARLIEST_S < s < self._now_s + SKEW_S for s in known):
                self.wrong.add(life.attempt)
            if began_s is not None:
                if before is not None and began_s < before[1] - SKEW_S:
                    self.wrong |= {before[0], life.attempt}
                before = life.attempt, began_s

    def _began_s(self, life: Life) -> float | None:
        known = self.times.get(life.attempt, Times())
        return known.began_s

    def _ended_s(self, life: Life) -> float | None:
        known = self.times.get(life.attempt, Times())
        if life.state == "running":
            return self._now_s
        recorded = [s for s in (known.ended_s, _in_calendar(life.time_s)) if s is not None]
        return min(recorded) if recorded else known.seen_s

    def _trained_s(self, life: Life, began_s: float | None, ended_s: float | None) -> float | None:
        """As an event tells, or the watchdog of a rank that failed; not after what was trained was saved."""
        known = self.times.get(life.attempt, Times())
        found = known.trained_s
        cause = life.cause
        if found is None and cause is not None and cause.trained_s > 0:
            found = _in_calendar(cause.time_s - cause.trained_s)
        if found is None or began_s is None or ended_s is None:
            return None
        first_saved_s = min((c.saved_s for c in known.commits if c.saved_s is not None), default=ended_s)
        return max(min(found, first_saved_s, ended_s), began_s)


def _in_calendar(time_s: float | None) -> float | None:
    return time_s if time_s is not None and 0 <= time_s <= MAX_S else None


def _branches(ordered: list[Life], starts: Mapping[int, Start]) -> dict[int, int | None]:
    """The attempts that the newest one stands on, each with the iteration at which the next of them left it."""
    newest = next((life.attempt for life in reversed(ordered) if life.attempt in starts), 0)
    found: dict[int, int | None] = {}
    left: int | None = None
    while newest in starts and newest not in found:  # a forged loop of parents ends, too
        found[newest] = left
        parent = _parent(starts[newest])
        newest, left = (parent.attempt, parent.iteration) if parent else (0, None)
    return found


def _chapter(
    life: Life, start: Start | None, after: Start | None, clock: _Clock, branches: Mapping[int, int | None]
) -> Chapter:
    how, says = _how(life), _says(life)
    if not life.attempt:
        return Chapter(attempt=0, how=how, says=says, ended_s=_in_calendar(life.time_s), kept=_went_on_from(after))
    began_s, trained_s, ended_s = clock.of[life.attempt]
    known = clock.times.get(life.attempt, Times())
    parent = _parent(start)
    known_iterations = [life.iteration or 0, parent.iteration if parent else 0]
    reached = min(MAX_NUMBER, max([0, *known_iterations, *(commit.iteration for commit in known.commits)]))
    chapter = Chapter(
        attempt=life.attempt,
        how=how,
        says=says,
        rank_says=told_of_a_rank(life.cause) if life.cause else "",
        began_s=began_s,
        trained_s=trained_s,
        ended_s=ended_s,
        is_end_recorded=known.ended_s is not None or life.time_s is not None,
        is_timed=life.attempt not in clock.wrong,
        parent=parent,
        reached=reached,
        commits=known.commits,
    )
    kept = _kept(chapter, after)
    lost = 0 if how in ("finished", *ALIVE) and after is None else max(0, reached - kept)
    return msgspec.structs.replace(
        chapter,
        kept=kept,
        lost_iterations=lost,
        lost_s=_lost_s(chapter, kept) if lost and chapter.is_timed else 0.0,
        is_rolled_back=after is not None and (after.requested.once or after.requested.begins_anew),
        stretches=_stretches(chapter, life, after, branches) if chapter.is_timed else (),
    )


def _parent(start: Start | None) -> PointName | None:
    """With an iteration that can be drawn, whoever wrote it."""
    if start is None or start.parent is None:
        return None
    return start.parent._replace(iteration=max(0, min(start.parent.iteration, MAX_NUMBER)))


def _kept(chapter: Chapter, after: Start | None) -> int:
    """The iteration from which training went on, or would."""
    goes_on_from = _went_on_from(after)
    return _newest_commit(chapter) if goes_on_from is None else goes_on_from


def _went_on_from(after: Start | None) -> int | None:
    if after is None:
        return None
    parent = _parent(after)
    return parent.iteration if parent else 0


def _newest_commit(chapter: Chapter) -> int:
    return max((commit.iteration for commit in chapter.commits), default=chapter.from_iteration)


def _lost_s(chapter: Chapter, kept: int) -> float:
    if chapter.began_s is None or chapter.ended_s is None:
        return 0.0
    return max(0.0, chapter.ended_s - _saved_s(chapter, kept))


def _saved_s(chapter: Chapter, iteration: int) -> float:
    """When what was trained up to `iteration` was safe; the begin where the attempt saved none of it."""
    began_s = chapter.began_s or 0.0
    saved = [c.saved_s for c in chapter.commits if c.iteration <= iteration and c.saved_s is not None]
    return max([began_s, *saved])


def _stretches(
    chapter: Chapter, life: Life, after: Start | None, branches: Mapping[int, int | None]
) -> tuple[Stretch, ...]:
    began_s, ended_s = chapter.began_s, chapter.ended_s
    if began_s is None or ended_s is None:
        return ()
    trained_s = chapter.trained_s
    if trained_s is None:  # then all of it may be set-up, or none
        trained_s = began_s if (chapter.reached or 0) > chapter.from_iteration else ended_s
    silent_s = life.cause.silent_s if life.cause is not None and chapter.how == "hung" else 0.0
    silent_from_s = max(trained_s, ended_s - max(0.0, silent_s))
    kept_to_s = _kept_to_s(chapter, branches, silent_from_s)
    kept_to_s = min(max(kept_to_s, trained_s), silent_from_s)
    bounds: tuple[float, ...] = (began_s, trained_s, kept_to_s, silent_from_s, ended_s)
    if chapter.how == "hung" and chapter.trained_s is None:  # in the set-up
        bounds = (began_s, *[max(began_s, ended_s - max(0.0, silent_s))] * 3, ended_s)
    stretches = zip(("setup", "kept", "lost", "silent"), bounds[:-1], bounds[1:], strict=True)
    return tuple(Stretch(kind, from_s, to_s) for kind, from_s, to_s in stretches if to_s > from_s)


def _kept_to_s(chapter: Chapter, branches: Mapping[int, int | None], all_s: float) -> float:
    """Until when the newest attempt has its work; `all_s` where it has all."""
    if chapter.attempt not in branches:
        return 0.0
    left = branches[chapter.attempt]
    if left is None:
        whole = chapter.how in ("finished", "preempted", *ALIVE)
        return all_s if whole else _saved_s(chapter, _newest_commit(chapter))
    return all_s if left >= (chapter.reached or 0) else _saved_s(chapter, left)


def _how(life: Life) -> str:
    if life.state == "stopped" and is_free(life):
        return "preempted"
    if life.state != "failed" or life.cause is None:
        return life.state
    return {"hang": "hung", "killed": "killed"}.get(life.cause.how, "failed")


def _says(life: Life) -> str:
    plain = {
        "finished": "finished",
        "running": "running",
        "unknown": "no end is recorded: it runs on another machine, or was killed",
        "new budget": "restarts are counted anew from here on",
    }
    return plain.get(life.state) or told(life)


def _in_place(chapters: tuple[Chapter, ...]) -> Iterator[Chapter]:
    """The same, those without an attempt at the iteration that the ones before left to go on from."""
    kept = 0
    for chapter in chapters:
        if not chapter.attempt:
            yield msgspec.structs.replace(chapter, kept=kept if chapter.kept is None else chapter.kept)
        else:
            kept = chapter.kept or 0
            yield chapter


def _recovered(chapters: list[Chapter]) -> list[Chapter]:
    """The same, each end with the time until training went on."""
    found, until, starts, kind, is_timed = [], None, 0, "", True
    for chapter in reversed(chapters):
        recovery = None
        is_told = is_timed and chapter.is_timed
        if chapter.how in COSTLY and until is not None and chapter.ended_s is not None and is_told:
            recovery = Recovery(max(0.0, until - chapter.ended_s), kind, starts + 1)
        found.append(msgspec.structs.replace(chapter, recovery=recovery))
        first_commit = next((c.time_s for c in chapter.commits if c.time_s is not None), None)
        went_on = chapter.trained_s if chapter.trained_s is not None else first_commit
        if went_on is not None:
            until, starts, is_timed = went_on, 0, chapter.is_timed
            kind = FIRST_STEP if chapter.trained_s is not None else FIRST_COMMIT
        elif until is not None and chapter.how != "new budget":
            starts += 1
    return found[::-1]
