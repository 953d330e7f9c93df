"""The report as a picture, drawn by matplotlib, which is an extra: for a slide, a chat, a ticket."""

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_resume.checkpoint.atomic import replacing
from megatron_resume.resume.story import COSTLY, KINDS, Chapter, Story
from megatron_resume.shown import shown_in_line

from .axis import Axis, times
from .course import Leg, course, drawn
from .life import SHARES, short
from .svg import MAX_CURVE, MAX_SIGNS, averaged, thinned
from .trace import Step, Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"kept": "#2a66c9", "lost": "#d43a3a", "silent": "#8b46c8", "setup": "#dd9a1c", "down": "#c3cbd6"}
INK, SOFT, LINE, GOOD = "#16202c", "#5b6878", "#dfe4ea", "#1d8a55"
STYLES = {"drop": (COLOURS["lost"], 1.0, (0, (3, 3))), "silent": (COLOURS["silent"], 2.0, (0, (1, 2)))}
MARKS = {
    "preempted": ("s", SOFT),
    "stopped": ("s", SOFT),
    "finished": ("o", GOOD),
    "running": (">", GOOD),
    "unknown": (">", SOFT),
    "new budget": ("P", SOFT),
}
MAX_LABELS = 12  # ends that are named
LABEL_SHARE = 0.06  # of the width, that a name takes


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def draw(told: Story, *, headline: str, facts: Iterable[str], trace: Trace | None, path: Path) -> None:
    """Write the picture. Needs matplotlib. Raises OSError where `path` cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = textwrap.wrap(_plain("  \N{MIDDLE DOT}  ".join(facts)), 130)
    head = 0.62 + 0.24 * len(lines)
    heights = [4.2, 0.42, 0.4, *([2.2] if trace else [])]
    figure = Figure(figsize=(12, sum(heights) + 0.8 + head), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    height = figure.get_figheight()
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - head / height), w_pad=0.12)
    panels: Any = figure.subplots(len(heights), 1, gridspec_kw={"height_ratios": heights}, squeeze=False)[:, 0]
    figure.text(0.012, 1 - 0.3 / height, _plain(headline), size=15, weight="bold", color=INK, va="center")
    figure.text(0.012, 1 - 0.5 / height, "\n".join(lines), size=10, color=SOFT, va="top")
    _draw_life(panels[0], panels[1], told)
    _draw_legend(panels[2], told)
    if trace:
        _draw_rewards(panels[3], trace)
    with replacing(path) as file:
        figure.savefig(file, format="png")


def _plain(text: str) -> str:
    """What matplotlib shows as it is: a dollar would begin a formula."""
    return shown_in_line(text).replace("$", r"\$")


def _draw_life(above: "Axes", below: "Axes", told: Story) -> None:
    chapters = drawn(told)
    legs = course(chapters)
    if not legs:
        above.set_axis_off()
        below.set_axis_off()
        return
    _dress(above)
    _dress(below)
    above.set_ylabel("iteration", color=SOFT)
    below.set_yticks([])
    below.spines["left"].set_visible(False)
    _draw_legs(above, legs)
    moments = [place.time_s for leg in legs for place in leg.places]
    room = (max(moments) - min(moments) or 1.0) * 0.03
    span = Axis(min(moments) - room, max(moments) + room, 0, 1)
    _draw_ends(above, chapters, span)
    for kind, colour in COLOURS.items():
        found = [(max(s.from_s, span.low), s.to_s) for s in told.stretches if s.kind == kind and s.to_s > span.low]
        below.broken_barh([(from_s, to_s - from_s) for from_s, to_s in found], (0, 1), color=colour, linewidth=0)
    below.set_ylim(0, 1)
    ticks = list(times(span, 9))
    for panel in (above, below):
        panel.set_xlim(span.low, span.high)
        panel.set_xticks([value for value, _ in ticks], [written for _, written in ticks])
    above.tick_params(labelbottom=False)
    levels = [place.iteration for leg in legs for place in leg.places]
    height = max(levels) - min(levels) or 1
    above.set_ylim(min(levels) - height * 0.03, max(levels) + height * 0.16)


def _dress(panel: "Axes") -> None:
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        panel.spines[side].set_color(LINE)
    panel.tick_params(colors=SOFT, labelsize=9)
    panel.grid(axis="y", color=LINE, linewidth=0.8)
    panel.set_axisbelow(True)


def _draw_legs(panel: "Axes", legs: list[Leg]) -> None:
    from matplotlib.collections import LineCollection

    for kind in dict.fromkeys(leg.kind for leg in legs):
        colour, width, style = STYLES.get(kind, (COLOURS.get(kind, SOFT), 2.0, "solid"))
        lines = [leg.places for leg in legs if leg.kind == kind]
        panel.add_collection(
            LineCollection(lines, colors=colour, linewidths=width, linestyles=[style], capstyle="round")
        )


def _draw_ends(panel: "Axes", chapters: tuple[Chapter, ...], span: Axis) -> None:
    is_crowded = len(chapters) > MAX_SIGNS
    for how in dict.fromkeys(chapter.how for chapter in chapters):
        mark, colour = _mark(how)
        places = [_place(chapter) for chapter in chapters if chapter.how == how]
        seconds, levels = zip(*places, strict=True)
        size = 2 if is_crowded else 8
        edge = colour if is_crowded else "white"
        panel.plot(seconds, levels, marker=mark, color=colour, markersize=size, markeredgecolor=edge, linewidth=0)
    free_from, named = -1.0, 0
    for chapter in () if is_crowded else chapters:
        at = span.at(_place(chapter)[0])
        if chapter.how in COSTLY and at - free_from > LABEL_SHARE and named < MAX_LABELS:
            free_from, named = at, named + 1
            _name(panel, chapter)


def _place(chapter: Chapter) -> tuple[float, int]:
    return chapter.ended_s or 0.0, chapter.came_to


def _mark(how: str) -> tuple[str, str]:
    return MARKS.get(how, ("X", COLOURS["silent" if how == "hung" else "lost"]))


def _name(panel: "Axes", chapter: Chapter) -> None:
    lost = f"\n\N{MINUS SIGN}{chapter.lost_iterations:,}" if chapter.lost_iterations else ""
    panel.annotate(
        f"{chapter.how}{lost}",
        _place(chapter),
        xytext=(0, 8),
        textcoords="offset points",
        ha="center",
        va="bottom",
        size=9,
        color=_mark(chapter.how)[1],
        weight="bold",
    )


def _draw_legend(panel: "Axes", told: Story) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(
            color=COLOURS[kind],
            label=f"{SHARES[kind]} {told.seconds[kind] / told.wall_s:.1%} ({short(told.seconds[kind])})",
        )
        for kind in KINDS
        if told.seconds[kind] > 0
    ]
    panel.set_axis_off()
    room = {"handlelength": 1, "columnspacing": 1.3}
    legend = panel.legend(handles=handles, loc="center", ncols=5, frameon=False, labelcolor=INK, fontsize=9, **room)
    legend.set_in_layout(False)  # else it takes its width from the charts


def _draw_rewards(panel: "Axes", trace: Trace) -> None:
    _dress(panel)
    panel.set_ylabel("reward", color=SOFT)
    panel.set_xlabel("iteration", color=SOFT)
    smooth = averaged(trace.kept)
    _plot(panel, thinned(trace.kept, MAX_CURVE), width=0.4 if smooth else 1.8)
    if smooth:
        _plot(panel, smooth, width=2.0)
    lost = trace.lost[-MAX_CURVE:]
    places = [step.iteration for step in lost], [step.reward for step in lost]
    panel.plot(*places, linewidth=0, marker="x", color=COLOURS["lost"], markersize=5)


def _plot(panel: "Axes", steps: list[Step], *, width: float) -> None:
    places = [step.iteration for step in steps], [step.reward for step in steps]
    panel.plot(*places, color=COLOURS["kept"], linewidth=width)
