"""The report as one HTML page: no script, nothing from elsewhere, light and dark, each word from disk escaped."""

from collections.abc import Iterator
from datetime import datetime, timezone
from statistics import median

from megatron_resume.resume.story import FAILED, FIRST_COMMIT, KINDS, Chapter, Story

from .life import MAX_CHAPTERS, SHARES, cells, ends, short
from .style import STYLE
from .svg import life_chart, reward_chart, said, share_bar, text
from .trace import Trace

MAX_ROWS = 200  # of the table, the newest

_GONE = {"lost": "of training", "silent": "of hanging"}
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(told: Story, *, name: str, trace: Trace | None, missing: str, made_s: float) -> str:
    """The whole page; `name` is the folder that it is about, `missing` why there is no curve of rewards."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>The life of a run: {text(name)}</title><style>{STYLE}</style></head><body><main>"
        f"{''.join(_parts(told, name, trace, missing, made_s))}</main></body></html>\n"
    )


def _parts(told: Story, name: str, trace: Trace | None, missing: str, made_s: float) -> Iterator[str]:
    made = datetime.fromtimestamp(made_s, timezone.utc)
    yield f"<header><h1>{text(headline(told))}</h1><p><code>{text(name)}</code></p>"
    yield f'<p class="soft">{_span(told)}as of {made:%Y-%m-%d %H:%M} UTC</p></header>'
    yield f'<div class="tiles">{"".join(_tile(*tile) for tile in tiles(told))}</div>'
    yield from _chart(told)
    yield from _rewards(trace, missing)
    if told.chapters:
        yield from _table(told)
        yield _MEANINGS


def headline(told: Story) -> str:
    """What one would say first."""
    if not told.chapters:
        return "Nothing has begun here yet"
    newest = told.chapters[-1]
    if newest.how == "finished":
        return f"Finished at iteration {newest.came_to:,}"
    if newest.how == "running":
        return f"Running, at iteration {newest.came_to:,} or beyond"
    if newest.how == "unknown":
        return f"At iteration {newest.came_to:,} when it was last seen"
    if newest.how == "new budget":
        return f"To be started again, from iteration {told.committed:,}"
    how = {"hung": "Ended by a hang", "preempted": "Preempted"}.get(newest.how, newest.how.capitalize())
    return f"{how} at iteration {newest.came_to:,}"


def _span(told: Story) -> str:
    moments = [stretch.from_s for stretch in told.stretches[:1]] + [stretch.to_s for stretch in told.stretches[-1:]]
    if not moments:
        return ""
    first, last = (datetime.fromtimestamp(moment, timezone.utc) for moment in moments)
    return f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC, "


def tiles(told: Story) -> list[tuple[str, str]]:
    """Large figures, and the words below them."""
    found = [(f"{told.committed:,}", "iterations committed")]
    if told.kept_share is not None:
        found.append((f"{told.kept_share:.0%}", f"of {short(told.wall_s)} was training that counts"))
    attempts = len(told.attempts)
    found.append((f"{attempts:,}", f"attempt{'s' * (attempts != 1)}: {ends(told)}"))
    times = [f"{short(told.seconds[kind])} {what}" for kind, what in _GONE.items() if told.seconds[kind]]
    found.append((f"{told.lost_iterations:,}", ": ".join(["iterations lost", *filter(None, [", ".join(times)])])))
    recoveries = [one.recovery.length_s for one in told.chapters if one.recovery and one.how in FAILED]
    if recoveries:
        found.append((short(median(recoveries)), f"to recover, {short(max(recoveries))} at worst"))
    return found


def _tile(large: str, small: str) -> str:
    return f'<div class="tile"><b>{text(large)}</b><span>{text(small)}</span></div>'


def _chart(told: Story) -> Iterator[str]:
    chart = life_chart(told)
    if not chart:
        return
    is_cut = len(told.chapters) >= MAX_CHAPTERS
    note = f'<p class="note">No more than the newest {MAX_CHAPTERS:,} lives are told.</p>' if is_cut else ""
    yield f'<section><h2>Iterations over time</h2>{note}<div class="scroll">{chart}</div></section>'
    yield f'<section class="bar"><h2>Where the time went</h2>{share_bar(told)}{_legend(told)}</section>'


def _legend(told: Story) -> str:
    entries = [
        f'<span><i style="background:var(--{kind})"></i>{SHARES[kind]} '
        f"<b>{told.seconds[kind] / told.wall_s:.1%}</b> ({short(told.seconds[kind])})</span>"
        for kind in KINDS
        if told.seconds[kind] > 0
    ]
    return f'<div class="legend">{"".join(entries)}</div>'


def _rewards(trace: Trace | None, missing: str) -> Iterator[str]:
    yield "<section><h2>Reward</h2>"
    if trace is None:
        yield f'<p class="note">{text(missing)}</p></section>'
        return
    lost = f", {len(trace.lost):,} more of lost work as crosses" if trace.lost else ""
    yield f'<p class="note">{len(trace.kept):,} iterations{lost}; from <code>{text(trace.path)}</code></p>'
    yield f'<div class="scroll">{reward_chart(trace)}</div></section>'


def _table(told: Story) -> Iterator[str]:
    yield '<section><h2>Attempts</h2><div class="scroll"><table><tr>'
    heads = ("attempt", "began, UTC", "lasted", "ended", "iterations", "commits", "lost", "recovered in", "")
    yield "".join(f"<th>{head}</th>" for head in heads) + "</tr>"
    yield from map(_row, reversed(told.chapters[-MAX_ROWS:]))
    yield "</table></div>"
    if len(told.chapters) > MAX_ROWS:
        yield f'<p class="note">The newest {MAX_ROWS} of {len(told.chapters):,}; status --json has all.</p>'
    if any(chapter.recovery and chapter.recovery.until == FIRST_COMMIT for chapter in told.chapters):
        yield '<p class="note">*: until the first commit, as no train step is recorded.</p>'
    yield "</section>"


def _row(chapter: Chapter) -> str:
    attempt, began, lasted, how, iterations, lost, recovered = map(text, cells(chapter))
    commits = f"{len(chapter.commits):,}" if chapter.attempt else ""
    kind = how.replace(" ", "-")
    small = "".join(f'<td class="n">{one}</td>' for one in (iterations, commits, lost, recovered))
    says = "" if chapter.how in ("finished", "running") else text(said(chapter))
    return (
        f'<tr><td class="n">{attempt}</td><td class="n">{began}</td><td class="n">{lasted}</td>'
        f'<td class="how {kind}">{how}</td>{small}<td class="says">{says}</td></tr>'
    )


_MEANINGS = """<footer class="note"><dl>
<dt>training that counts</dt><dd>its work is in the line of the newest attempt</dd>
<dt>lost</dt><dd>iterations: what training had come to, less the point from which the next attempt went on; time: from
the save of that point to the end</dd>
<dt>hanging</dt><dd>from the last progress of a rank until it was found and ended</dd>
<dt>set-up</dt><dd>from the begin of an attempt to the end of its first train step: loading, compiling</dd>
<dt>down or starting</dt><dd>from an end to the begin of the next attempt, with the import of all libraries</dd>
<dt>recovered in</dt><dd>from an end to the first train step that came after it</dd>
<dt>5s+</dt><dd>no end is recorded: until the last sign of life</dd>
</dl></footer>"""
