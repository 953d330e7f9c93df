"""`verify DIR`: every committed point, whole or what is wrong with it; `--deep` reads all models. Changes nothing."""

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from megatron_resume.checkpoint.digests import digests_of, read_digests, undigested
from megatron_resume.checkpoint.folder import find_model, read_folder, read_own_files
from megatron_resume.checkpoint.layout import COMMITTED, PointName, point_path
from megatron_resume.checkpoint.model_files import (
    DigestOf,
    locate,
    other_bytes,
    sha256_aside,
    unreadable,
)
from megatron_resume.checkpoint.momentary import lasting
from megatron_resume.checkpoint.records import Manifest, ModelFile, Receipt, read
from megatron_resume.errors import DamagedError, UnreadableError
from megatron_resume.resume.choose import head, live_line
from megatron_resume.shown import shown_in_line

from .terminal import SHOWN, console, reading, table
from .values import as_json, point_of, root_of, text_of, whats_of
from .verified import Verified

if TYPE_CHECKING:
    from rich.table import Table

INTERRUPTED = 130  # as a shell reports SIGINT


class Model(msgspec.Struct):
    """The model of one role, where it was found."""

    save: Path
    folder: Path
    receipt: Receipt
    digest_of: DigestOf


class Point(msgspec.Struct):
    """A committed point, and what was found out about it."""

    name: PointName
    is_live: bool
    problems: list[str] = []
    unread: list[UnreadableError] = []  # what the storage does not say: it may be whole
    models: list[Model] = []
    by_time: list[str] = []  # files that no digest vouches for

    def is_there(self, root: Path) -> bool:
        """Retention takes COMMITTED first: what is amiss afterwards is no damage."""
        return os.path.lexists(point_path(root, self.name) / COMMITTED)


class Read(msgspec.Struct):
    """How much a deep verification has read."""

    files: int = 0
    size: int = 0  # bytes
    found_before: int = 0  # files that an earlier run found whole, unchanged since


class Task(NamedTuple):
    """One file to be read."""

    point: Point
    model: Model
    record: ModelFile
    sha256: str  # that it must have


def verify(directory: Path, *, deep: bool, again: bool, json: bool) -> int:
    """Print which committed points of `directory` are whole. Returns the exit code: 65 where one is damaged.

    Raises:
        ConfigError: `directory` does not exist or cannot be read.
    """
    try:
        report = examine(directory, deep=deep, again=again)
    except KeyboardInterrupt:
        print(f"megatron-resume: {_how_to_go_on(directory, deep)}", file=sys.stderr)
        return INTERRUPTED
    if json:
        print(as_json(report))
    else:
        _print(report)
    code: int = report["exit_code"]
    return code


def _how_to_go_on(directory: Path, deep: bool) -> str:
    command = shlex.join(["megatron-resume", "verify", str(directory), *(["--deep"] if deep else [])])
    what = "goes on with the file at which it was" if deep else "begins anew"
    return f"stopped before all was verified; `{command}` {what}"


def examine(directory: Path, *, deep: bool = False, again: bool = False) -> dict[str, Any]:
    """The report as plain values, the same that `--json` prints. `again`: do not go on from an interruption."""
    root = root_of(directory)
    folder, unread = read_folder(root).told()
    live = set(live_line(folder, head(folder)))
    remarks: list[str] = []
    found = [_look(root, name, name in live, remarks) for name in reversed(folder.committed)]
    points = [point for point in found if point is not None]
    done = Read()
    if deep:
        state = Verified(root, again=again)
        _read_models(root, points, state, done)
        state.end()
        remarks += state.remarks
        points = [point for point in points if not point.problems or point.is_there(root)]
    damaged = sum(bool(point.problems) for point in points)
    unreadable = sum(bool(point.unread and not point.problems) for point in points)
    unread = [*unread, *(error for point in points for error in point.unread)]
    return {
        "directory": text_of(root),
        "deep": deep,
        "whole": len(points) - damaged - unreadable,
        "damaged": damaged,
        "unreadable": whats_of(unread),
        "exit_code": DamagedError.exit_code if damaged else max((error.exit_code for error in unread), default=0),
        "points": [_values(point) for point in points],
        "read": msgspec.to_builtins(done),
        "remarks": [*folder.damaged_starts.values(), *remarks],
    }


def _values(point: Point) -> dict[str, Any]:
    return {
        **point_of(point.name),
        "line": "live" if point.is_live else "abandoned",
        "whole": not point.problems and not point.unread,
        "problems": point.problems,
        "unreadable": [error.what for error in point.unread],
        "by_size_and_time_only": point.by_time,
    }


def _look(root: Path, name: PointName, is_live: bool, remarks: list[str]) -> Point | None:
    """What a start would find of this point, in every role that it holds; None when it vanished meanwhile."""
    point, path = Point(name, is_live), point_path(root, name)
    try:
        roles = read(path / COMMITTED, Manifest).roles
        own = read_own_files(root, name, roles)
    except DamagedError as error:
        point.problems.append(str(error))
    except UnreadableError as error:
        point.unread.append(error)
    else:
        for role, receipt in own.receipts.items():
            _look_at_model(root, point, own.directories[role], receipt, remarks)
    return point if not point.problems or point.is_there(root) else None


def _look_at_model(root: Path, point: Point, save: Path, receipt: Receipt, remarks: list[str]) -> None:
    digest_of = digests_of(root, receipt)
    try:
        point.models.append(Model(save, find_model(save, receipt, digest_of), receipt, digest_of))
    except DamagedError as error:
        point.problems.append(str(error))
    except UnreadableError as error:
        point.unread.append(error)
    without = undigested(receipt)
    if without and not point.unread:
        point.by_time += [f"{receipt.role}/{record.path}" for record in without if digest_of(record) is None]
        remarks += _damage_of_digests(root, receipt)


def _damage_of_digests(root: Path, receipt: Receipt) -> list[str]:
    try:
        read_digests(root, receipt)
    except DamagedError as error:
        return [f"{error}; its files are vouched for by size and time only"]
    return []


def _read_models(root: Path, points: list[Point], state: Verified, done: Read) -> None:
    """Compare the content of every model file that has a digest; what differs becomes a problem of its point."""
    tasks = [task for task in _tasks(points) if not _is_known(task, state, done)]
    with reading(sum(task.record.size for task in tasks)) as advance:
        for task in tasks:
            problem = _problem_with_content(task, state, advance)
            if problem and _was_moved(task):
                problem = _problem_with_content(task, state, advance)
            done.files, done.size = done.files + 1, done.size + task.record.size
            if problem:
                task.point.problems.append(f"{task.model.receipt.role}: {problem}")


def _tasks(points: list[Point]) -> Iterator[Task]:
    for point in points:
        for model in point.models:
            for record in lasting(model.receipt.files):
                sha256 = record.sha256 or model.digest_of(record)
                if sha256:
                    yield Task(point, model, record, sha256)


def _is_known(task: Task, state: Verified, done: Read) -> bool:
    try:
        known = state.holds(*locate(task.model.folder, task.record), task.sha256)
    except (DamagedError, UnreadableError):  # it changed just now, which is found when it is read
        return False
    done.found_before += known
    return known


def _problem_with_content(task: Task, state: Verified, advance: Callable[[int], None]) -> str | None:
    try:
        path, stat = locate(task.model.folder, task.record)
        if sha256_aside(path, advance) != task.sha256:
            return other_bytes(path)
    except DamagedError as error:
        return str(error)
    except UnreadableError as error:
        task.point.unread.append(error)
        return None
    except OSError as error:
        return unreadable(task.model.folder / task.record.path, error)
    state.add(path, stat, task.sha256)
    return None


def _was_moved(task: Task) -> bool:
    """Whether a start moved the model aside meanwhile; it is then looked for where it is now."""
    model, before = task.model, task.model.folder
    try:
        model.folder = find_model(model.save, model.receipt, model.digest_of)
    except (DamagedError, UnreadableError):
        return False
    return model.folder != before


def _print(report: dict[str, Any]) -> None:
    out = console()
    if not report["points"] and not report["unreadable"]:
        out.print("No point is committed here. megatron-resume explain says what a start would do.", style="bold")
        return
    out.print(_table_of_points(report["points"]))
    for point in report["points"]:
        for problem in point["problems"]:
            out.print(f"damaged: {PointName(point['iteration'], point['attempt'])}: {shown_in_line(problem)}")
    for unread in report["unreadable"]:
        out.print(f"unreadable: {shown_in_line(unread)}")
    for remark in report["remarks"]:
        out.print(f"note: {shown_in_line(remark)}")
    for line in _summary(report):
        out.print(line)
    unread = len(report["points"]) - report["whole"] - report["damaged"]
    more = f", {unread:,} unreadable" if unread else ""
    out.print(f"committed points: {report['whole']:,} whole, {report['damaged']:,} damaged{more}", style="bold")


def _table_of_points(points: list[dict[str, Any]]) -> "Table":
    made = table("iteration", "attempt", "line", "state", "vouched for by size and time only", title="committed points")
    for point in points[:SHOWN]:
        verdict = "whole" if point["whole"] else "damaged" if point["problems"] else "unreadable"
        by_time = len(point["by_size_and_time_only"])
        cells = (str(point["iteration"]), str(point["attempt"]), point["line"], verdict)
        made.add_row(*cells, f"{by_time:,} files" if by_time else "-")
    if len(points) > SHOWN:
        made.add_row("...", "...", "", "", f"{len(points) - SHOWN:,} older ones (--json lists them)")
    return made


def _summary(report: dict[str, Any]) -> Iterator[str]:
    by_time = sum(len(point["by_size_and_time_only"]) for point in report["points"])
    if by_time:
        yield f"{by_time:,} files have no digest: they are vouched for by size and time only"
    if not report["deep"]:
        yield "models were compared by size and time, and where these differ by content; --deep reads them all"
        return
    read_now = report["read"]
    yield f"{read_now['files']:,} files were read ({read_now['size'] / 1e9:.1f} GB)"
    if read_now["found_before"]:
        yield f"{read_now['found_before']:,} unchanged files were found whole before (--again reads them too)"
