"""`status DIR`: a job's resume points and roles, how its attempts ended, what a start would do. Changes nothing."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from megatron_resume.checkpoint.endings import ProcessEnd, process_ends
from megatron_resume.checkpoint.events import Failed, Stopped
from megatron_resume.checkpoint.folder import Folder, read_folder, read_point
from megatron_resume.checkpoint.launch_key import launch_key
from megatron_resume.checkpoint.layout import PointName, model_folder
from megatron_resume.checkpoint.records import Request, Start
from megatron_resume.errors import ConfigError
from megatron_resume.resume.choose import Fresh, Outcome, Resume, choose, head, live_line
from megatron_resume.roles import TRAINED
from megatron_resume.shown import shown_in_json, shown_in_line

SHOWN = 20  # points in the table; --json has all
SHOWN_ATTEMPTS = 5  # the newest; --json has all


def status(directory: Path, *, json: bool) -> None:
    """Print what lies in the data checkpoint folder `directory`, and the outcome of a start without requests.

    Raises:
        ConfigError: `directory` does not exist or cannot be read.
    """
    report = examine(directory)
    if json:
        print(shown_in_json(msgspec.json.format(msgspec.json.encode(report), indent=2).decode()))
    else:
        _print(report)


def examine(directory: Path) -> dict[str, Any]:
    """The report as plain values, the same that `--json` prints."""
    if not os.path.isdir(directory):
        raise ConfigError(f"{str(directory)!r} is no folder; name the one given as --data-checkpoint-path")
    root = Path(os.path.abspath(directory))
    folder = read_folder(root)
    roles = _trained_roles(folder)
    outcome = choose(folder, Request(), launch_key(os.environ), lambda name: read_point(root, name, roles))
    return {
        "directory": _text(root),
        "trained_roles": roles,
        "outcome": type(outcome).__name__.lower(),
        "reason": outcome.reason,
        "point": _point(outcome.point.name) if isinstance(outcome, Resume) else None,
        "roles": _roles(outcome),
        "passed_over": [{**_point(p.point), "reason": p.reason} for p in outcome.passed_over],
        "points": _points(folder, outcome),
        "attempts": _attempts(folder),
        "damaged_attempts": list(folder.damaged_starts.values()),
    }


def _text(path: Path) -> str:
    """`path` as JSON can hold it: names on disk are bytes, and not all of them are UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _trained_roles(folder: Folder) -> tuple[str, ...]:
    """As the newest attempt was configured; nobody asks for them again on the command line."""
    start = head(folder) or (folder.starts[max(folder.starts)] if folder.starts else None)
    return _roles_of(start) if start else TRAINED


def _roles_of(start: Start) -> tuple[str, ...]:
    roles = start.config.get("trained_roles")
    known = tuple(role for role in TRAINED if role in roles) if isinstance(roles, list) else ()
    return known or TRAINED


def _attempts(folder: Folder) -> list[dict[str, Any]]:
    """Oldest first, each with how its processes ended."""
    last_commits = {point.attempt: point.iteration for point in folder.committed}
    return [
        {
            "attempt": number,
            "outcome": start.outcome,
            "parent": _point(start.parent) if start.parent else None,
            "created": start.created,
            "host": start.launch.host,
            "last_commit": last_commits.get(number),
            "processes": [_process(end) for end in process_ends(folder.root, number, _roles_of(start))],
        }
        for number, start in sorted(folder.starts.items())
    ]


def _process(end: ProcessEnd) -> dict[str, Any]:
    return {**msgspec.to_builtins(end), "says": _says(end)}


def _says(end: ProcessEnd) -> str:
    """How a process ended, in words."""
    if isinstance(end.event, Failed):
        return f"failed with exit code {end.event.exit_code}: {end.event.error}: {end.event.message}"
    if isinstance(end.event, Stopped):
        return f"stopped with exit code {end.event.exit_code}: {end.event.reason}"
    if end.event is not None:
        return "finished"
    process = f"process {end.pid} on {end.host}" if end.pid else "its process"
    return {
        "running": f"running: {process}",
        "killed": f"killed: {process} is gone, and recorded no ending",
        "unknown": f"no ending recorded: {process} was killed, or still runs",
        "released": f"no ending recorded: {process} gave up its lease",
    }[end.state]


def _point(name: PointName) -> dict[str, int]:
    return {"iteration": name.iteration, "attempt": name.attempt}


def _roles(outcome: Outcome) -> dict[str, Any]:
    if not isinstance(outcome, Resume):
        return {}
    progress = outcome.point.data.progress
    return {
        role: {
            "iteration": receipt.iteration,
            "load": _text(outcome.point.directories[role] / model_folder(receipt.iteration)),
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
    return [{**_point(name), "state": state(name), "reason": reasons.get(name)} for name in names]


def _print(report: dict[str, Any]) -> None:
    from rich.console import Console  # here, since --json has no need of its 0.1 s
    from rich.table import Table

    console = Console(soft_wrap=False, highlight=False)
    points = Table("iteration", "attempt", "state", title="resume points")
    _fill_points(points, report["points"])
    console.print(points)
    if report["roles"]:
        table = Table("role", "iteration", "files", "MB", "loads", title="roles")
        for role, facts in report["roles"].items():
            size = f"{facts['bytes'] / 1e6:.1f}"
            table.add_row(role, str(facts["iteration"]), str(facts["files"]), size, _shown(facts["load"]))
        console.print(table)
    for attempt in report["attempts"][-SHOWN_ATTEMPTS:]:
        for line in _lines(attempt):
            console.print(_shown(line))
    for passed in report["passed_over"]:
        name = PointName(passed["iteration"], passed["attempt"])
        console.print(f"passed over: {name}: {_shown(passed['reason'])}")
    for damage in report["damaged_attempts"]:
        console.print(f"damaged: {_shown(damage)}")
    console.print(f"A start here: [bold]{_shown(_sentence(report))}[/bold]")


def _fill_points(table: Any, points: list[dict[str, Any]]) -> None:
    for point in points[:SHOWN]:
        table.add_row(str(point["iteration"]), str(point["attempt"]), point["state"])
    if len(points) > SHOWN:
        table.add_row("...", "...", f"{len(points) - SHOWN} older ones (--json lists them)")


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


def _sentence(report: dict[str, Any]) -> str:
    if report["outcome"] == Resume.__name__.lower():
        return f"resume from {PointName(**report['point'])}: {report['reason']}"
    if report["outcome"] == Fresh.__name__.lower():
        return f"fresh: {report['reason']}"
    return f"refused: {report['reason']}"


def _shown(text: str) -> str:
    """Text from disk for a terminal: control characters and markup shown, not obeyed."""
    return shown_in_line(text).replace("[", "\\[")
