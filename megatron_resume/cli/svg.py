"""The charts of the page, as SVG that the page's style colours. All text from disk is escaped here."""

import html
from collections.abc import Iterable, Iterator
from itertools import pairwise

from megatron_resume.resume.story import ALIVE, COSTLY, KINDS, Chapter, Story
from megatron_resume.shown import shown_in_line
from megatron_resume.withheld import without_secrets

from .axis import Axis, axis, numbers, times
from .course import Leg, Place, course, drawn
from .life import SHARES, cells, iso, short
from .trace import Step, Trace

WIDTH, LEFT, RIGHT = 1060, 58, 1044
MAX_TEXT = 400  # of one message
MAX_SIGNS = 60  # ends that are more than a dot
MAX_COMMITS, MAX_CROSSES = 90, 400  # that are drawn one by one
MAX_CURVE = 1_500  # places of a curve
LABEL_WIDTH, LABEL_HEIGHT = 66, 44  # of what is written beside an end
SIGNS = {
    "killed": "M-4,-4L4,4M-4,4L4,-4",
    "failed": "M-4,-4L4,4M-4,4L4,-4",
    "hung": "M-3,-5V5M3,-5V5",
    "preempted": "M-4,-4H4V4H-4Z",
    "stopped": "M-4,-4H4V4H-4Z",
    "finished": "M-5,0L-1,4L5,-4",
    "running": "M-3,-5L5,0L-3,5Z",
    "unknown": "M-3,-5L5,0L-3,5Z",
    "new budget": "M0,-5V5M-5,0H5",
}


def text(value: object) -> str:
    """What came from disk, for a place between tags or in quotes: nothing in it is obeyed, and it is not endless."""
    line = shown_in_line(str(value)[:MAX_TEXT])
    return html.escape(line + (" [...]" if len(str(value)) > MAX_TEXT else ""))


def said(chapter: Chapter) -> str:
    """How it ended, for a page that is handed on: an older record may quote a secret."""
    return without_secrets(chapter.says[: 2 * MAX_TEXT])


def life_chart(told: Story) -> str:
    """Iterations over time, each end and what it cost; below it what each moment was spent on."""
    chapters = drawn(told)
    legs = course(chapters)
    if not legs:
        return ""
    x, y = _axes(chapters, legs)
    parts = [
        *_grid(x, y, bottom=300, x_ticks=times(x)),
        *(_leg(leg, x, y) for leg in legs),
        *_dots(chapters, x, y),
        *_ends(chapters, x, y),
        *_strip(told, x, top=330),
    ]
    return _svg(372, parts, "Iterations over time, with each end of an attempt and the work that it cost")


def _axes(chapters: tuple[Chapter, ...], legs: list[Leg]) -> tuple[Axis, Axis]:
    moments = [place.time_s for leg in legs for place in leg.places]
    moments += [chapter.ended_s for chapter in chapters if chapter.ended_s is not None]
    levels = [place.iteration for leg in legs for place in leg.places]
    return axis(min(moments), max(moments), LEFT, RIGHT - 30), axis(min([0, *levels]), max(levels), 300, 50)


def _svg(height: int, parts: Iterable[str], label: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _grid(x: Axis, y: Axis, *, bottom: int, x_ticks: Iterable[tuple[float, str]]) -> Iterator[str]:
    for value, written in numbers(y, 5):
        at = y.at(value)
        yield f'<path class="grid" d="M{LEFT},{at:.1f}H{RIGHT}"/>'
        yield f'<text class="tick" x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{written}</text>'
    for value, written in x_ticks:
        at = x.at(value)
        yield f'<path class="tickmark" d="M{at:.1f},{bottom}v5"/>'
        yield f'<text class="tick" x="{at:.1f}" y="{bottom + 19}" text-anchor="middle">{written}</text>'


def _leg(leg: Leg, x: Axis, y: Axis) -> str:
    return f'<path class="leg {leg.kind}" d="{_path(leg.places, x, y)}"/>'


def _path(places: Iterable[Place], x: Axis, y: Axis) -> str:
    return "M" + "L".join(f"{x.at(place.time_s):.1f},{y.at(place.iteration):.1f}" for place in places)


def _dots(chapters: tuple[Chapter, ...], x: Axis, y: Axis) -> Iterator[str]:
    """Each commit, where they are few enough to be seen."""
    if sum(len(chapter.commits) for chapter in chapters) > MAX_COMMITS:
        return
    for chapter in chapters:
        for commit in chapter.commits:
            if commit.saved_s is None or chapter.began_s is None or chapter.ended_s is None:
                continue
            at = x.at(min(max(commit.saved_s, chapter.began_s), chapter.ended_s))
            said = f"iteration {commit.iteration} committed by attempt {chapter.attempt}, {iso(commit.time_s)}"
            place = f'cx="{at:.1f}" cy="{y.at(commit.iteration):.1f}"'
            yield f'<circle class="commit" {place} r="3.4">{_title(said)}</circle>'


def _title(said: str) -> str:
    return f"<title>{text(said)}</title>"


def _ends(chapters: tuple[Chapter, ...], x: Axis, y: Axis) -> Iterator[str]:
    """A sign at each end, and its name where there is room for it."""
    named = (-1e9, 0.0)
    if len(chapters) > MAX_SIGNS:
        yield from (_small_end(chapter, x, y) for chapter in chapters)
        return
    for chapter in chapters:
        at = x.at(chapter.ended_s or 0.0), y.at(chapter.came_to)
        place = f'transform="translate({at[0]:.1f},{at[1]:.1f})"'
        yield f'<g class="end {chapter.how.replace(" ", "-")}" {place}>{_title(_about(chapter))}'
        yield f'<circle r="8"/><path d="{SIGNS[chapter.how]}"/></g>'
        is_free = at[0] - named[0] > LABEL_WIDTH or abs(at[1] - named[1]) > LABEL_HEIGHT
        if is_free and chapter.how in (*COSTLY, *ALIVE):
            named = at
            yield _name(chapter, min(max(at[0], LEFT + 30), RIGHT - 24), at[1])


def _small_end(chapter: Chapter, x: Axis, y: Axis) -> str:
    place = f'cx="{x.at(chapter.ended_s or 0.0):.1f}" cy="{y.at(chapter.came_to):.1f}"'
    kind = chapter.how.replace(" ", "-")
    return f'<circle class="small {kind}" {place} r="2">{_title(_about(chapter))}</circle>'


def _name(chapter: Chapter, x: float, y: float) -> str:
    if not chapter.lost_iterations:
        return f'<text class="label" x="{x:.1f}" y="{y - 13:.1f}">{text(chapter.how)}</text>'
    lost = f'<text class="cost" x="{x:.1f}" y="{y - 13:.1f}">\N{MINUS SIGN}{chapter.lost_iterations:,}</text>'
    return f'<text class="label" x="{x:.1f}" y="{y - 27:.1f}">{text(chapter.how)}</text>{lost}'


def _about(chapter: Chapter) -> str:
    _, _, lasted, _, iterations, lost, recovered = cells(chapter)
    facts = [
        said(chapter),
        f"ended {iso(chapter.ended_s)}",
        f"iterations {iterations} in {lasted}" if chapter.attempt else "",
        f"lost {lost}" if lost else "",
        f"recovered in {recovered}" if recovered else "",
    ]
    return "; ".join(fact for fact in facts if fact)


def _strip(told: Story, x: Axis, *, top: int) -> Iterator[str]:
    """One bar of the whole run."""
    yield f'<text class="tick" x="{LEFT - 8}" y="{top + 18}" text-anchor="end">time</text>'
    for stretch in told.stretches:
        left, right = max(x.at(stretch.from_s), LEFT), x.at(stretch.to_s)
        if right <= left:
            continue
        said = f"{SHARES[stretch.kind]}: {short(stretch.length_s)} from {iso(stretch.from_s)}"
        place = f'x="{left:.2f}" y="{top}" width="{right - left:.2f}" height="28"'
        yield f'<rect class="part {stretch.kind}" {place}>{_title(said)}</rect>'


def share_bar(told: Story) -> str:
    """Where the time went, in shares."""
    if told.wall_s <= 0:
        return ""
    parts, left = [], 0.0
    for kind in KINDS:
        width = WIDTH * told.seconds[kind] / told.wall_s
        if width > 0:
            said = f"{SHARES[kind]}: {short(told.seconds[kind])}"
            place = f'x="{left:.2f}" y="0" width="{width:.2f}" height="26"'
            parts.append(f'<rect class="part {kind}" {place}>{_title(said)}</rect>')
        left += width
    return _svg(26, parts, "Shares of the time")


def reward_chart(trace: Trace) -> str:
    """The reward of each iteration; what was run for nothing as crosses, and where attempts went on as lines."""
    steps = [*trace.kept, *trace.lost]
    x = axis(min(s.iteration for s in steps), max(s.iteration for s in steps), LEFT, RIGHT - 30)
    y = axis(min(s.reward for s in steps), max(s.reward for s in steps), 230, 34)
    kept = thinned(trace.kept, MAX_CURVE)
    smooth = averaged(trace.kept)
    parts = [
        *_grid(x, y, bottom=240, x_ticks=numbers(x, 10)),
        *_joints(trace, x),
        f'<path class="curve {"faint" if smooth else ""}" d="{_curve(kept, x, y)}"/>',
        f'<path class="curve" d="{_curve(smooth, x, y)}"/>' if smooth else "",
        *(_cross(step, x, y) for step in trace.lost[-MAX_CROSSES:]),
    ]
    return _svg(266, parts, "Reward of each iteration")


def _curve(steps: Iterable[Step], x: Axis, y: Axis) -> str:
    return "M" + "L".join(f"{x.at(step.iteration):.1f},{y.at(step.reward):.1f}" for step in steps)


def _cross(step: Step, x: Axis, y: Axis) -> str:
    said = f"iteration {step.iteration} of attempt {step.attempt}: reward {step.reward:.4g}, lost"
    place = f'transform="translate({x.at(step.iteration):.1f},{y.at(step.reward):.1f})"'
    return f'<path class="cross" {place} d="M-3.5,-3.5L3.5,3.5M-3.5,3.5L3.5,-3.5">{_title(said)}</path>'


def _joints(trace: Trace, x: Axis) -> Iterator[str]:
    """Where another attempt goes on."""
    joints = [after for before, after in pairwise(trace.kept) if after.attempt != before.attempt]
    free_from = -1e9
    for step in joints[-MAX_CROSSES:]:
        at = x.at(step.iteration - 0.5)
        yield f'<path class="joint" d="M{at:.1f},22V240"/>'
        if at - free_from > LABEL_WIDTH:
            free_from = at
            yield f'<text class="tick" x="{at:.1f}" y="16" text-anchor="middle">attempt {step.attempt}</text>'


def thinned(steps: tuple[Step, ...], most: int) -> list[Step]:
    """At most so many of `steps`, with the least and the largest reward of each group that is left out."""
    size = -(-2 * len(steps) // most)
    if size <= 2:
        return list(steps)
    found: list[Step] = []
    for first in range(0, len(steps), size):
        group = steps[first : first + size]
        found += sorted({min(group, key=lambda s: s.reward), max(group, key=lambda s: s.reward)})
    return found


def averaged(steps: tuple[Step, ...]) -> list[Step]:
    """A curve that shows where long and noisy rewards go; nothing for a short one."""
    if len(steps) < 100:
        return []
    size = len(steps) // 50
    groups = [steps[first : first + size] for first in range(0, len(steps), size)]
    return [
        Step(group[len(group) // 2].iteration, group[0].attempt, sum(s.reward for s in group) / len(group))
        for group in groups
    ]
