"""The life of a run for people: read from its folder, as plain values, and as text of 80 columns."""

import time
from collections import Counter
from datetime import datetime, timezone
from itertools import islice
from typing import TYPE_CHECKING, Any

from megatron_resume.checkpoint.endings import process_ends
from megatron_resume.checkpoint.folder import Folder
from megatron_resume.checkpoint.lives import lives
from megatron_resume.checkpoint.times import times
from megatron_resume.resume.story import COSTLY, FAILED, FIRST_COMMIT, Chapter, Story, story
from megatron_resume.roles import TRAINED
from megatron_resume.shown import shown_in_line

from .terminal import table
from .values import point_of

if TYPE_CHECKING:
    from rich.console import Console

MAX_CHAPTERS = 1_000  # the newest
SHOWN_CHAPTERS = 5  # the newest; --json and `report` have more


def story_of(folder: Folder) -> Story:
    """The story that the files of `folder` tell now. Never raises for what cannot be read, and waits for nothing."""
    found = list(islice(lives(folder.root), MAX_CHAPTERS))  # of each the records of all ranks are read
    attempts = [life.attempt for life in found if life.attempt]
    known = {number: times(folder.root, number, folder.starts.get(number)) for number in attempts}
    newest = process_ends(folder.root, attempts[0], TRAINED) if attempts else []
    may_run = any(end.state == "unknown" for end in newest)
    return story(found, folder.starts, known, time.time(), may_run=may_run)


def plain(told: Story) -> dict[str, Any]:
    """The story as `--json` prints it."""
    return {
        "committed": told.committed,
        "reached": told.reached,
        "lost_iterations": told.lost_iterations,
        "seconds": {kind: round(length_s, 3) for kind, length_s in told.seconds.items()},
        "chapters": [_plain(chapter) for chapter in told.chapters],
    }


def _plain(chapter: Chapter) -> dict[str, Any]:
    recovery = chapter.recovery
    return {
        "attempt": chapter.attempt or None,
        "how": chapter.how,
        "says": chapter.says,
        "began": iso(chapter.began_s),
        "trained": iso(chapter.trained_s),
        "ended": iso(chapter.ended_s),
        "end_is_recorded": chapter.is_end_recorded,
        "clock_agrees": chapter.is_timed,
        "parent": point_of(chapter.parent) if chapter.parent else None,
        "reached": chapter.reached,
        "kept": chapter.kept,
        "commits": len(chapter.commits),
        "lost_iterations": chapter.lost_iterations,
        "lost_s": round(chapter.lost_s, 3),
        "rolled_back_on_request": chapter.is_rolled_back,
        "recovered_s": round(recovery.length_s, 3) if recovery else None,
        "recovered_until": recovery.until if recovery else None,
        "starts_to_recover": recovery.starts if recovery else None,
    }


def iso(time_s: float | None) -> str | None:
    return None if time_s is None else datetime.fromtimestamp(time_s, timezone.utc).isoformat(timespec="seconds")


def print_story(out: "Console", told: Story) -> None:
    """What the run went through in a few lines, and the newest lives in a table."""
    if not told.chapters:
        return
    made = table(*COLUMNS, title="life of the run", lines=False)
    for chapter in told.chapters[-SHOWN_CHAPTERS:]:
        made.add_row(*map(shown_in_line, cells(chapter)))
    out.print(made)
    older = len(told.chapters) - SHOWN_CHAPTERS
    if older > 0:
        out.print(f"{older} earlier in --json, and in what `megatron-resume report` draws")
    for line in summary(told):
        out.print(line)


UNKNOWN = "?"
COLUMNS = ("attempt", "began, UTC", "lasted", "ended", "iterations", "lost", "recovered in")


def cells(chapter: Chapter) -> tuple[str, ...]:
    """One row of the table; an empty cell where there is nothing to tell."""
    began, ended = chapter.began_s, chapter.ended_s
    lasted = "" if began is None or ended is None else short(ended - began) if chapter.is_timed else UNKNOWN
    return (
        str(chapter.attempt or "-"),
        "" if began is None else f"{datetime.fromtimestamp(began, timezone.utc):%m-%d %H:%M}",
        lasted if chapter.is_end_recorded or lasted in ("", UNKNOWN) else f"{lasted}+",
        chapter.how,
        f"{chapter.from_iteration}-{chapter.came_to}" if chapter.attempt else "",
        lost(chapter),
        recovered(chapter),
    )


def lost(chapter: Chapter) -> str:
    """Iterations and time that the end of this life cost."""
    lost_time = short(chapter.lost_s) if chapter.is_timed else UNKNOWN
    return f"{chapter.lost_iterations} ({lost_time})" if chapter.lost_iterations else ""


def recovered(chapter: Chapter) -> str:
    if chapter.recovery is not None:
        starts = f" ({chapter.recovery.starts} starts)" if chapter.recovery.starts > 1 else ""
        star = "*" if chapter.recovery.until == FIRST_COMMIT else ""
        return f"{short(chapter.recovery.length_s)}{star}{starts}"
    return ("not yet" if chapter.is_timed else UNKNOWN) if chapter.how in COSTLY else ""


def summary(told: Story) -> list[str]:
    """The whole run in two or three sentences."""
    attempts = len(told.attempts)
    found = [
        f"{attempts} attempt{'s' * (attempts != 1)} in {short(told.wall_s)}: {ends(told)}; "
        f"iteration {told.committed} is committed, {told.lost_iterations} iterations were lost"
    ]
    if told.kept_share is not None:
        parts = [
            f"{told.seconds[kind] / told.wall_s:.0%} {name}"
            for kind, name in SHARES.items()
            if told.seconds[kind] >= told.wall_s / 200
        ]
        found.append(f"of the time: {', '.join(parts)}")
    if any(not chapter.is_timed for chapter in told.chapters):
        found.append(f"{UNKNOWN}: the clock of that attempt does not agree with its own times, or with those around it")
    if any(chapter.recovery and chapter.recovery.until == FIRST_COMMIT for chapter in told.chapters):
        found.append("*: until the first commit, as no train step is recorded")
    return found


def ends(told: Story) -> str:
    """How many attempts ended how, where it was not well."""
    counts = Counter(chapter.how for chapter in told.attempts)
    found = [f"{counts[how]:,} {how}" for how in COSTLY if counts[how]]
    starts = sum(chapter.how in FAILED for chapter in told.chapters if not chapter.attempt)
    found += [f"{starts:,} failed start{'s' * (starts > 1)} beside them"] if starts else []
    return ", ".join(found) or "no failure"


SHARES = {
    "kept": "training that counts",
    "lost": "training that was lost",
    "silent": "hanging",
    "setup": "set-up",
    "down": "down or starting",
}


def short(length_s: float) -> str:
    """A length of time in its two largest units: 3m20s, 2h05m."""
    total = round(length_s)
    if total < 1:
        return f"{length_s:.1f}s" if length_s >= 0.05 else "0s"
    for size, unit, lower, name in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s")):
        if total >= size:
            return f"{total // size}{unit}{total % size // lower:02d}{name}"
    return f"{total}s"
