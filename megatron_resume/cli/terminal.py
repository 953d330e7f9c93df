"""What a person reads on a terminal: text from disk escaped, tables that fold and never cut, colour where it shows."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from megatron_resume.checkpoint.layout import PointName
from megatron_resume.shown import shown_in_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SHOWN = 20  # of what may be thousands; --json has all


def console(*, stderr: bool = False) -> "Console":
    """Where a command prints: nothing in the text is obeyed as markup, and no line is longer than the terminal."""
    from rich.console import Console  # here, since --json has no need of its 0.1 s

    colours = None if os.environ.get("NO_COLOR") else "auto"  # rich alone would keep bold
    width = 80 if os.environ.get("COLUMNS") == "0" else None  # rich would print nothing
    made = Console(markup=False, emoji=False, highlight=False, color_system=colours, stderr=stderr, width=width)  # type: ignore[arg-type]
    made.on_broken_pipe = _raise_broken_pipe  # type: ignore[method-assign]  # rich would end with 1
    return made


def _raise_broken_pipe() -> None:
    raise BrokenPipeError


@contextmanager
def reading(total: int) -> Iterator[Callable[[int], None]]:
    """A bar with bytes and time left while `total` bytes are read; call what is given with each block's size.

    On standard error, and only where that is a terminal that may be painted on.
    """
    if not sys.stderr.isatty() or os.environ.get("NO_COLOR"):
        yield lambda size: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("reading"), BarColumn(), DownloadColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda size: bar.advance(task, size)


def table(*columns: str, title: str, lines: bool = True) -> "Table":
    """A table whose cells fold where they are too wide: what they hold is there to be copied."""
    from rich.table import Table

    made = Table(title=title, title_justify="left") if lines else Table(title=title, title_justify="left", box=None)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def print_damage(out: "Console", report: dict[str, Any]) -> None:
    """The points that a start passes over, newest first, what is damaged, and what cannot be read now."""
    passed_over = report["passed_over"]
    for passed in passed_over[:SHOWN]:
        name = PointName(passed["iteration"], passed["attempt"])
        out.print(f"passed over: {name}: {shown_in_line(passed['reason'])}")
    if len(passed_over) > SHOWN:
        out.print(f"passed over: {len(passed_over) - SHOWN:,} older ones (--json lists them)")
    for damage in report["damaged_attempts"]:
        out.print(f"damaged: {shown_in_line(damage)}")
    for unread in report["unreadable"][:SHOWN]:
        out.print(f"unreadable: {shown_in_line(unread)}")
    if len(report["unreadable"]) > SHOWN:
        out.print(f"unreadable: {len(report['unreadable']) - SHOWN:,} more (--json lists them)")
