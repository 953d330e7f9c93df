"""`explain DIR`: what a start here would do, and why: point, line, and each argument it changes. Changes nothing."""

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from megatron_resume.adapter.decision import (
    accepted,
    check_free,
    decide_on,
    may_join,
    outcome_at,
    request_of,
    roles_here,
)
from megatron_resume.checkpoint.folder import Folder, read_folder, read_point
from megatron_resume.checkpoint.launch_key import launch_key
from megatron_resume.checkpoint.layout import PointName
from megatron_resume.checkpoint.leases import Watch
from megatron_resume.checkpoint.records import Launch, Start
from megatron_resume.config import ResumeConfig, resolve
from megatron_resume.errors import ConfigError, ResumeError, UnreadableError
from megatron_resume.resume.choose import Outcome, Refused, Resume, ancestry, head, honoured_by, live_line
from megatron_resume.resume.overrides import explained
from megatron_resume.roles import FROZEN, TRAINED, canonical
from megatron_resume.shown import shown_in_line
from megatron_resume.sources import variable

from .terminal import SHOWN, console, print_damage, table
from .values import as_json, outcome_of, point_of, root_of, sentence, text_of, trained_roles, whats_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

REFUSED = Refused.__name__.lower()
_LOOKS = 10  # at a folder from which a running job takes away points as fast as they are read


class Verdict(NamedTuple):
    """What a start would come to, as far as it can be told without waiting."""

    outcome: Outcome
    error: ResumeError | None = None  # that would end it
    joins: int | None = None  # the attempt in which it would take its place


def explain(directory: Path, *, asked: Mapping[str, object], role: str | None, json: bool) -> int:
    """Print what a start on `directory` would do if it were `asked` for this (keys of ResumeConfig).

    Returns the exit code of such a start, 0 where it is not refused. `role` narrows the argument changes to one.

    Raises:
        ConfigError: `directory` does not exist or cannot be read, or what is asked for is wrong.
    """
    report = examine(directory, asked=asked, role=role)
    if json:
        print(as_json(report))
    else:
        _print(report)
    code: int = report["exit_code"]
    return code


def examine(directory: Path, *, asked: Mapping[str, object], role: str | None = None) -> dict[str, Any]:
    """The report as plain values, the same that `--json` prints.

    Where another process holds the job, `outcome` is the refusal; `point` and `arguments` are what comes if it ends.
    """
    root = root_of(directory)
    role = canonical(role) if role else None
    launch = launch_key(os.environ)
    for _ in range(_LOOKS):
        as_it_is = read_folder(root)
        folder, unread = as_it_is.told()
        config = _config(folder, asked, role)
        watch = Watch(root, config.resume_lease_time)
        verdict = _verdict(as_it_is, config, launch, watch)
        if isinstance(verdict.outcome, Resume) or not _was_overtaken(folder):
            break
    if role in TRAINED and role not in config.trained_roles:
        raise ConfigError(f"{role} is not trained in this job; its trained roles are {', '.join(config.trained_roles)}")
    start, attempt = _line_in_question(folder, config, launch)
    return {
        "directory": text_of(root),
        "trained_roles": config.trained_roles,
        **_said(verdict),
        "joins": verdict.joins,
        "watched_first": _watched_first(folder, config, watch),
        "lease_time": config.resume_lease_time,
        "line_of": attempt,
        "line": list(_line(folder, start)),
        "not_on_the_live_line": list(_not_on_the_live_line(folder)),
        "arguments": _arguments(verdict.outcome, [role] if role else [*config.trained_roles, *FROZEN]),
        "damaged_attempts": list(folder.damaged_starts.values()),
        "unreadable": whats_of(unread),
    }


def _was_overtaken(folder: Folder) -> bool:
    """Whether points came or went while it was looked at, as in a running job that keeps few."""
    now, _ = read_folder(folder.root).told()
    return now.points != folder.points or now.committed != folder.committed


def _config(folder: Folder, asked: Mapping[str, object], role: str | None) -> ResumeConfig:
    """What a start from this shell would be configured with; what it does not say is as in the newest attempt."""
    before = folder.starts[max(folder.starts)].config if folder.starts else {}
    known = {"trained_roles": ",".join(trained_roles(folder))}
    if isinstance(before.get("resume_lease_time"), int):
        known["resume_lease_time"] = str(before["resume_lease_time"])
    if before.get("resume_role") and role in trained_roles(folder):  # each role is a job of its own
        known["resume_role"] = str(role)
    environ = {**{variable(key): value for key, value in known.items()}, **os.environ}
    return resolve({**asked, "data_checkpoint_path": str(folder.root)}, environ)


def _verdict(folder: Folder, config: ResumeConfig, launch: Launch, watch: Watch) -> Verdict:
    """As rank 0 of a start decides, but waiting for nobody."""

    def lives(attempt: int, role: str) -> bool:
        return bool(watch.seems(attempt, role))

    outcome = decide_on(folder, config, launch)
    try:
        accepted(outcome)
        if may_join(folder, config, lives):
            newest = folder.starts[max(folder.starts)]
            outcome = outcome_at(folder.root, config, newest.parent, requested=False, read=read_point)
            return Verdict(outcome, joins=newest.attempt)
        check_free(folder, config, lives)
    except ResumeError as error:
        return Verdict(outcome, error)
    return Verdict(outcome)


def _said(verdict: Verdict) -> dict[str, Any]:
    said = {**outcome_of(verdict.outcome), "exit_code": 0, "otherwise": None}
    if verdict.error is None:
        return said
    said["exit_code"] = verdict.error.exit_code
    if not isinstance(verdict.outcome, Refused):
        said["otherwise"] = sentence(said)
        said["outcome"], said["reason"] = REFUSED, str(verdict.error).removeprefix("start refused: ")
    return said


def _watched_first(folder: Folder, config: ResumeConfig, watch: Watch) -> list[str]:
    """Trained roles whose holder is on another machine: only its lease tells, in time, whether it lives."""
    newest = max(folder.starts, default=None)
    if newest is None or config.take_over:
        return []
    try:
        return [role for role in roles_here(config) if watch.seems(newest, role) is None]
    except UnreadableError:  # a start ends by it
        return []


def _line_in_question(folder: Folder, config: ResumeConfig, launch: Launch) -> tuple[Start | None, int | None]:
    """The attempt whose line a start looks at; with its number where that one was asked for."""
    request = request_of(config)
    if request.attempt is None or honoured_by(folder, request, launch) is not None:
        return head(folder), None
    return folder.starts.get(request.attempt), request.attempt


def _line(folder: Folder, start: Start | None) -> Iterator[dict[str, Any]]:
    """The attempts of a line, newest first, each with its points on the line."""
    points = _by_attempt(live_line(folder, start))
    for one in ancestry(folder, start):
        yield _attempt(folder, one.attempt, points.get(one.attempt, []))


def _not_on_the_live_line(folder: Folder) -> Iterator[dict[str, Any]]:
    """Newest first, the attempts that the live line does not hold, and points of others that it leaves out."""
    start = head(folder)
    live = {one.attempt for one in ancestry(folder, start)}
    on_line = _by_attempt(live_line(folder, start))
    for number in sorted({*folder.starts, *folder.iterations}, reverse=True):
        left = set(folder.points_of(number)).difference(on_line.get(number, ()))
        if number not in live or left:
            newer = number not in live and (start is None or number > start.attempt)
            state = "fresh, nothing committed" if newer else "abandoned"
            yield {**_attempt(folder, number, sorted(left, reverse=True)), "state": state}


def _by_attempt(points: Iterable[PointName]) -> dict[int, list[PointName]]:
    return {attempt: list(of_one) for attempt, of_one in groupby(points, key=lambda point: point.attempt)}


def _attempt(folder: Folder, number: int, points: list[PointName]) -> dict[str, Any]:
    start = folder.starts.get(number)
    committed = [point.iteration for point in points if folder.is_committed(point)]
    return {
        "attempt": number,
        "parent": point_of(start.parent) if start and start.parent else None,
        "committed": committed,
        "not_committed": [point.iteration for point in points if not folder.is_committed(point)],
    }


def _arguments(outcome: Outcome, roles: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """What each role's arguments become; nothing but a resume changes any."""
    if not isinstance(outcome, Resume):
        return {role: [] for role in roles}
    return {
        role: [
            {"argument": name, "value": text_of(value) if isinstance(value, str) else value, "why": why}
            for name, (value, why) in explained(role, outcome.point).items()
        ]
        for role in roles
    }


def _print(report: dict[str, Any]) -> None:
    out = console()
    asked = report["line_of"]
    out.print(_table_of_attempts(report["line"], "live line" if asked is None else f"line of attempt {asked}"))
    if report["not_on_the_live_line"]:
        out.print(_table_of_attempts(report["not_on_the_live_line"], "not on the live line"))
    _print_arguments(out, report["arguments"])
    print_damage(out, report)
    for role in report["watched_first"]:
        out.print(
            f"{role} was held on another machine: a start would first watch its lease for {report['lease_time']} s, "
            "and be refused (78) if it is renewed."
        )
    if report["joins"]:
        out.print(f"It would join attempt {report['joins']}, in which the other roles train.")
    out.print(f"A start here: {shown_in_line(sentence(report))}", style="bold")
    if report["otherwise"]:
        out.print(f"Without that process: {shown_in_line(report['otherwise'])}")


def _table_of_attempts(attempts: list[dict[str, Any]], title: str) -> "Table":
    made = table("attempt", "continued from", "points", title=title)
    for one in attempts[:SHOWN]:
        parent = str(PointName(**one["parent"])) if one["parent"] else "-"
        made.add_row(str(one["attempt"]), parent, "\n".join(_cell(one)))
    if len(attempts) > SHOWN:
        made.add_row("...", "...", f"{len(attempts) - SHOWN:,} older ones (--json lists them)")
    return made


def _cell(attempt: dict[str, Any]) -> Iterator[str]:
    """The points of an attempt in words."""
    if "state" in attempt:
        yield attempt["state"]
    if attempt["committed"]:
        yield _iterations(attempt["committed"])
    if attempt["not_committed"]:
        yield f"never committed: {_iterations(attempt['not_committed'])}"


def _iterations(newest_first: list[int]) -> str:
    older = len(newest_first) - SHOWN
    text = ", ".join(map(str, newest_first[:SHOWN]))
    return f"{text} and {older:,} older ones" if older > 0 else text


def _print_arguments(out: "Console", arguments: dict[str, list[dict[str, Any]]]) -> None:
    for title, changes in _by_title(arguments).items():
        out.print(_table_of_changes(title, changes))
    kept = [role for role, of_role in arguments.items() if not of_role]
    if kept:
        out.print(f"{', '.join(kept)}: every argument is kept")


def _by_title(arguments: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """What roles have in common is said once; paths stand alone, since they need the width."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for change in [one for of_role in arguments.values() for one in of_role]:
        roles = " and ".join(role for role, of_role in arguments.items() if change in of_role)
        kind = "paths" if isinstance(change["value"], str) else "arguments"
        of_title = tables.setdefault(f"{kind} of {roles}", [])
        if change not in of_title:
            of_title.append(change)
    return dict(sorted(tables.items(), key=lambda item: item[0].startswith("arguments")))


def _table_of_changes(title: str, changes: list[dict[str, Any]]) -> "Table":
    made = table("argument", "value", "why", title=title)
    made.columns[0].no_wrap = True
    for change in changes:
        value = change["value"]
        made.add_row(change["argument"], shown_in_line(value) if isinstance(value, str) else repr(value), change["why"])
    return made
