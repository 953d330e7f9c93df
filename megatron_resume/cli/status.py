"""`status DIR`: a job's resume points and roles, how its attempts ended, what a start would do. Changes nothing."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from megatron_resume.checkpoint.endings import ProcessEnd, process_ends
from megatron_resume.checkpoint.events import Failed, Stopped
from megatron_resume.checkpoint.folder import Folder, read_folder, read_point
from megatron_resume.checkpoint.launch_key import launch_key
from megatron_resume.checkpoint.layout import PointName, model_folder
from megatron_resume.checkpoint.records import Request
from megatron_resume.resume.choose import Outcome, Resume, choose, head, live_line
from megatron_resume.resume.role_set import roles_of
from megatron_resume.resume.story import FAILED, Chapter, Story
from megatron_resume.shown import shown_in_line

from .life import plain, print_story, story_of
from .terminal import SHOWN, console, print_damage, table
from .values import as_json, outcome_of, point_of, root_of, sentence, text_of, trained_roles, whats_of

if TYPE_CHECKING:
    from rich.table import Table

SHOWN_ATTEMPTS = 5  # the newest; --json has all


def status(directory: Path, *, json: bool) -> None:
    """Print what lies in the data checkpoint folder `directory`, and the outcome of a start without requests.

    Raises:
        ConfigError: `directory` does not exist or cannot be read.
    """
    folder = read_folder(root_of(directory))
    told = story_of(folder)
    report = _report(folder, told)
    if json:
        print(as_json(report))
    else:
        _print(report, told)


def examine(directory: Path) -> dict[str, Any]:
    """The report as plain values, the same that `--json` prints. Raises ConfigError as `status` does."""
    folder = read_folder(root_of(directory))
    return _report(folder, story_of(folder))


def _report(folder: Folder, told: Story) -> dict[str, Any]:
    root = folder.root
    as_it_is, (folder, unread) = folder, folder.told()
    roles = trained_roles(folder)
    outcome = choose(as_it_is, Request(), launch_key(os.environ), lambda name: read_point(root, name, roles))
    return {
        "directory": text_of(root),
        "trained_roles": roles,
        **outcome_of(outcome),
        "roles": _roles(outcome),
        "points": _points(folder, outcome),
        "attempts": _attempts(folder, told),
        "damaged_attempts": list(folder.damaged_starts.values()),
        "unreadable": whats_of(unread),
        "story": plain(told),
    }


def _attempts(folder: Folder, told: Story) -> list[dict[str, Any]]:
    """Oldest first, each with how its processes ended."""
    chapters = {chapter.attempt: chapter for chapter in told.attempts}
    last_commits = {point.attempt: point.iteration for point in folder.committed}
    return [
        {
            "attempt": number,
            "outcome": start.outcome,
            "parent": point_of(start.parent) if start.parent else None,
            "created": start.created,
            "host": start.launch.host,
            "last_commit": last_commits.get(number),
            "processes": _processes(process_ends(folder.root, number, roles_of(start)), chapters.get(number)),
            "cause": chapters[number].rank_says if number in chapters else "",
        }
        for number, start in sorted(folder.starts.items())
    ]


def _processes(ends: list[ProcessEnd], chapter: Chapter | None) -> list[dict[str, Any]]:
    """What each said of its end; of the only one that was killed, what is known of the rank that was."""
    rank_says = f"{chapter.how}: {chapter.rank_says}" if chapter and chapter.rank_says and len(ends) == 1 else ""
    return [{**msgspec.to_builtins(end), "says": _says(end, rank_says)} for end in ends]


def _says(end: ProcessEnd, rank_says: str) -> str:
    """How a process ended, in words. `rank_says` stands in for one that said nothing and lives no more."""
    if isinstance(end.event, Failed):
        return f"failed with exit code {end.event.exit_code}: {end.event.error}: {end.event.message}"
    if isinstance(end.event, Stopped):
        if end.event.planned:
            return f"stopped {end.event.reason}"
        return f"stopped with exit code {end.event.exit_code}: {end.event.reason}"
    if end.event is not None:
        return "finished"
    if rank_says and end.state != "running":
        return rank_says
    process = f"process {end.pid} on {end.host}" if end.pid else "its process"
    return {
        "running": f"running: {process}",
        "killed": f"killed: {process} is gone, and recorded no ending",
        "unknown": f"no ending recorded: {process} was killed, or still runs",
        "released": f"no ending recorded: {process} gave up its lease",
    }[end.state]


def _roles(outcome: Outcome) -> dict[str, Any]:
    if not isinstance(outcome, Resume):
        return {}
    progress = outcome.point.data.progress
    return {
        role: {
            "iteration": receipt.iteration,
            "load": text_of(outcome.point.directories[role] / model_folder(receipt.iteration)),
            "files": len(receipt.files),
            "bytes": sum(file.size for file in receipt.files),
            "episode": progress.episode,
            "consumed_samples": progress.consumed_samples,
        }
        for role, receipt in outcome.point.receipts.items()
    }


def _points(folder: Folder, outcome: Outcome) -> list[dict[str, Any]]:
    """Newest first. `committed` was not checked file by file; `resumable` and `passed over` were."""
    live = set(live_line(folder, head(folder)))
    reasons = {passed.point: passed.reason for passed in outcome.passed_over}
    chosen = outcome.point.name if isinstance(outcome, Resume) else None

    def state(name: PointName) -> str:
        if name == chosen:
            return "resumable"
        if name in reasons:
            return "passed over"
        if not folder.is_committed(name):
            return "never committed"
        return "committed" if name in live else "abandoned"

    names = sorted(folder.points, reverse=True)
    return [{**point_of(name), "state": state(name), "reason": reasons.get(name)} for name in names]


def _print(report: dict[str, Any], told: Story) -> None:
    out = console()
    points = table("iteration", "attempt", "state", title="resume points")
    _fill_points(points, report["points"])
    out.print(points)
    if report["roles"]:
        out.print(_table_of_roles(report["roles"]))
    for attempt in report["attempts"][-SHOWN_ATTEMPTS:]:
        for line in _lines(attempt):
            out.print(shown_in_line(line))
    for line in _starts_without_attempt(told):
        out.print(shown_in_line(line))
    print_story(out, told)
    print_damage(out, report)
    out.print(f"A start here: {shown_in_line(sentence(report))}", style="bold")


def _table_of_roles(roles: dict[str, Any]) -> "Table":
    made = table("role", "iteration", "files", "MB", "loads", title="roles")
    for role, facts in roles.items():
        size = f"{facts['bytes'] / 1e6:.1f}"
        made.add_row(role, str(facts["iteration"]), str(facts["files"]), size, shown_in_line(facts["load"]))
    return made


def _fill_points(made: "Table", points: list[dict[str, Any]]) -> None:
    for point in points[:SHOWN]:
        made.add_row(str(point["iteration"]), str(point["attempt"]), point["state"])
    if len(points) > SHOWN:
        made.add_row("...", "...", f"{len(points) - SHOWN} older ones (--json lists them)")


def _lines(attempt: dict[str, Any]) -> Iterator[str]:
    """How each process of an attempt ended."""
    last = attempt["last_commit"]
    commits = "nothing committed" if last is None else f"last commit at iteration {last}"
    processes = attempt["processes"] or [{"roles": [], "says": "no ending recorded", "damage": None}]
    for process in processes:
        who = f"attempt {attempt['attempt']}"
        if len(processes) > 1:
            who += f", {' and '.join(process['roles'])}"
        yield f"{who}: {process['says'].splitlines()[0]} ({commits})"
        if process["damage"]:
            yield f"{who}: {process['damage']}"
    if attempt["cause"] and not any(attempt["cause"] in process["says"] for process in processes):
        yield f"attempt {attempt['attempt']}: {attempt['cause']}"


def _starts_without_attempt(told: Story) -> Iterator[str]:
    """How starts ended that came to no attempt, after the newest attempt: what was before is past."""
    for chapter in reversed(told.chapters[-SHOWN_ATTEMPTS:]):
        if chapter.attempt:
            return
        if chapter.how in FAILED:
            yield chapter.says
