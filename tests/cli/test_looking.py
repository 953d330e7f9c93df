"""Commands that look at a job: they change nothing, bear a job that goes on meanwhile, and fit the terminal."""

import json
import os
import pty
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron_resume.adapter.decision import decide_on
from megatron_resume.checkpoint.events import Failed
from megatron_resume.checkpoint.folder import Folder
from megatron_resume.checkpoint.layout import PointName, point_path
from megatron_resume.checkpoint.records import Launch
from megatron_resume.cli import explain, main
from megatron_resume.config import ResumeConfig
from megatron_resume.resume.choose import Outcome
from support import PROGRAMS
from support.job_on_disk import JobOnDisk, contents
from support.ordinary_user import as_an_ordinary_user, open_folder
from support.pool import PLAIN, Pool, Program, run

COMMANDS = ["status", "explain", "verify", "verify --deep"]
LONG = "a_folder_with_a_name_of_some_length_[bold]"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `verify` keeps what it has read."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def long_job(tmp_path_factory: pytest.TempPathFactory) -> JobOnDisk:
    """A job whose paths are longer than a line, with damage and endings that name them. Nobody changes it."""
    base = tmp_path_factory.mktemp("long").joinpath(*[f"{LONG}_{n}" for n in range(4)])
    base.mkdir(parents=True)
    job = JobOnDisk(base)
    attempt = job.attempt()
    for iteration in range(1, 40):
        job.save(attempt, iteration)
    job.tell(attempt, Failed(error="RuntimeError", message=f"cannot read {base}", exit_code=1))
    shutil.rmtree(job.model("value", 20))
    job.save(job.attempt(PointName(20, attempt)), 41, parts=("policy",))
    return job


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    return {**kept, "PYTHONIOENCODING": "utf-8", **more}


def printed(pool: Pool, command: str, root: Path, **more: str) -> str:
    """What a process prints where there is no terminal."""
    words = ("-m", "megatron_resume", *command.split(), str(root))
    done = run(pool, PROGRAMS / "python.py", *words, environ=environment(**more), kind=PLAIN)
    assert done.stderr == ""
    return done.stdout


def printed_on_a_terminal(pool: Pool, command: str, root: Path, **more: str) -> str:
    ours, theirs = pty.openpty()
    words = ("-m", "megatron_resume", *command.split(), str(root))
    with open(theirs, "w") as terminal:
        environ = environment(TERM="xterm-256color", **more)
        program = Program(pool, PROGRAMS / "python.py", *words, environ=environ, output=terminal, kind=PLAIN)
    said = b"".join(iter(lambda: read_or_end(ours), b""))
    program.close()
    os.close(ours)
    return said.decode()


def read_or_end(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so where the other side was closed
        return b""


@pytest.mark.parametrize("command", COMMANDS)
def test_no_line_is_longer_than_80_columns_and_nothing_is_cut(
    command: str, long_job: JobOnDisk, torch_pool: Pool
) -> None:
    text = printed(torch_pool, command, long_job.root, COLUMNS="80")
    assert max(map(len, text.splitlines())) <= 80
    assert "\u2026" not in text
    assert letters(str(long_job.model("value", 20))) in letters(text)


def letters(text: str) -> str:
    """What is left of a text when lines are joined and frames taken away."""
    return "".join(c for c in text if c.isalnum() or c in "/_[].")


@pytest.mark.parametrize("command", [*COMMANDS, "report", "prune --keep 2"])
def test_the_folder_above_is_refused_with_the_one_that_was_meant(
    command: str, job: JobOnDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    for iteration in (2, 4, 6):
        job.save(job.attempt(), iteration)
    before = contents(job.base)
    assert main([*command.split(), str(job.base)]) == 78
    said = capsys.readouterr()
    assert f"{str(job.base)!r} holds no attempt of a job, but data_checkpoint in it does; type {job.root}" in said.err
    assert said.out == ""
    assert contents(job.base) == before


def test_a_folder_without_a_job_in_it_or_one_level_below_is_where_one_would_begin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    JobOnDisk(tmp_path / "runs" / "run1").attempt()
    assert main(["status", str(tmp_path / "runs")]) == 0
    assert "A start here: fresh" in capsys.readouterr().out


def test_a_folder_of_points_whose_attempts_are_gone_is_looked_at_itself(
    job: JobOnDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    job.save(job.attempt(), 2)
    shutil.rmtree(job.root / "attempts")
    JobOnDisk(job.root).attempt()
    main(["status", str(job.root)])
    assert "resume points" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_there_are_no_escape_codes_without_a_terminal(command: str, long_job: JobOnDisk, torch_pool: Pool) -> None:
    assert "\x1b" not in printed(torch_pool, command, long_job.root)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_color_is_obeyed_on_a_terminal(command: str, long_job: JobOnDisk, torch_pool: Pool) -> None:
    assert "\x1b[1m" in printed_on_a_terminal(torch_pool, command, long_job.root)
    assert "\x1b" not in printed_on_a_terminal(torch_pool, command, long_job.root, NO_COLOR="1")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_not_a_byte_of_the_job_changes(command: str, form: list[str], long_job: JobOnDisk) -> None:
    before = contents(long_job.base)
    times = {path: os.stat(long_job.base / path).st_mtime_ns for path in before}
    main([*command.split(), str(long_job.root), *form])
    assert contents(long_job.base) == before
    assert {path: os.stat(long_job.base / path).st_mtime_ns for path in before} == times


@pytest.fixture
def read_only_job() -> Iterator[JobOnDisk]:
    with open_folder() as base:
        job = JobOnDisk(base)
        attempt = job.attempt()
        for iteration in (2, 4):
            job.save(attempt, iteration)
        for path in [base, *base.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield job


@pytest.mark.parametrize("command", COMMANDS)
def test_a_read_only_copy_will_do(command: str, read_only_job: JobOnDisk, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(read_only_job.base)
    with as_an_ordinary_user():
        with pytest.raises(PermissionError):
            (read_only_job.root / "a file").touch()
        assert main([*command.split(), str(read_only_job.root), "--json"]) == 0
    assert contents(read_only_job.base) == before
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_points_may_appear_and_vanish_meanwhile(
    command: str, job: JobOnDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    attempt, ended, kept = job.attempt(), threading.Event(), 3
    for iteration in range(1, kept + 1):
        job.save(attempt, iteration)

    def go_on() -> None:
        iteration = kept
        while not ended.is_set():
            iteration += 1
            job.save(attempt, iteration)
            vanish(job, PointName(iteration - kept, attempt))

    writer = threading.Thread(target=go_on)
    writer.start()
    try:
        codes = {main([*command.split(), str(job.root), "--json"]) for _ in range(30)}
    finally:
        ended.set()
        writer.join()
    assert codes == {0}
    assert len(job.folder().points) == kept
    assert job.folder().points[0].iteration > 1, "nothing vanished"


def test_where_all_points_vanish_while_they_are_read_explain_looks_again(
    job: JobOnDisk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As under a job that keeps one point, and saves just then."""
    attempt = job.attempt()
    job.save(attempt, 1)

    def overtaken(folder: Folder, config: ResumeConfig, launch: Launch) -> Outcome:
        if folder.points == [PointName(1, attempt)]:
            job.save(attempt, 2)
            vanish(job, PointName(1, attempt))
        return decide_on(folder, config, launch)

    monkeypatch.setattr(explain, "decide_on", overtaken)
    assert main(["explain", str(job.root), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["point"] == {"iteration": 2, "attempt": attempt}
    assert report["line"][0]["committed"] == [2]


def vanish(job: JobOnDisk, name: PointName) -> None:
    """As retention removes a point: COMMITTED first, then the rest, then its models."""
    path = point_path(job.root, name)
    (path / "COMMITTED").unlink()
    shutil.rmtree(path)
    for role in job.roles:
        shutil.rmtree(job.model(role, name.iteration))
