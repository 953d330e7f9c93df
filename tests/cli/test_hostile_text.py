"""What others wrote, and what is typed, is shown on a terminal and in a page, and obeyed by neither."""

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from megatron_resume.checkpoint.events import Failed, Stopped
from megatron_resume.checkpoint.failures import write_failure
from megatron_resume.checkpoint.layout import START, attempt_path
from megatron_resume.checkpoint.leases import Lease, claim
from megatron_resume.cli import main
from megatron_resume.shown import shown
from support.eventful_job import EventfulJob
from support.job_on_disk import FAILURE

BAD = "\x1b[31m\x1b]0;t\x07\u202e\x9b1m\r\x00\x7f<script>alert(1)</script>[bold]:smile:$x_{1"
FOLDER = BAD.replace("\x00", "").replace("/", "_") + "\n'\"`$(x)"
COMMANDS = {
    "status": ["status"],
    "explain": ["explain"],
    "explain a request": ["explain", "--load-data-checkpoint-iteration", "77"],
    "verify": ["verify"],
    "verify deep": ["verify", "--deep"],
    "prune": ["prune", "--keep", "2"],
    "report": ["report"],
}


@pytest.fixture
def hostile(tmp_path: Path) -> EventfulJob:
    """A job all of whose texts are hostile, as its folder's name is."""
    job = EventfulJob(tmp_path / FOLDER)
    job.begins(0)
    job.saves(10, 2)
    job.saves(20, 4)
    job.says(Failed(error=BAD, message=BAD, exit_code=1))
    failure = msgspec.structs.replace(
        FAILURE,
        attempt=1,
        host=BAD,
        error=BAD,
        message=BAD,
        kernel=BAD,
        signal=BAD,
        phase=BAD,
        job=BAD,
        versions={BAD: BAD},
    )
    write_failure(job.root, "life", failure)
    job.begins(30, (4, 1))
    job.saves(40, 6)
    job.saves(50, 8)
    job.saves(60, 10)
    holder = msgspec.structs.replace(job.launch(), host=BAD, boot=BAD, started=BAD, job=BAD)
    claim(job.root, 2, "policy", Lease(holder=holder, start=BAD))
    job.says(Stopped(reason=BAD, exit_code=203))
    change_start(job, 2, created=BAD, versions={BAD: BAD}, outcome=BAD)
    change_start(job, 2, config={"trained_roles": ["policy", BAD, "value"], "resume_role": BAD, BAD: BAD})
    (job.model("policy", 8) / "__0_0.distcp").write_bytes(b"")
    (job.root / BAD.replace("\x00", "").replace("/", "_")).mkdir()
    return job


def change_start(job: EventfulJob, attempt: int, **values: object) -> None:
    path = attempt_path(job.root, attempt) / START
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def check(*printed: str) -> None:
    for text in printed:
        assert text == shown(text)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("form", ["", "--json"])
def test_no_command_that_looks_at_a_job_prints_what_a_terminal_obeys(
    command: str, form: str, hostile: EventfulJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *options = COMMANDS[command]
    if name == "report":
        if form:
            pytest.skip("it has no JSON")
        options = ["--to", str(tmp_path / f"{FOLDER}.html")]
    code = main([name, str(hostile.root), *options, *filter(None, [form])])
    assert code in (0, 65, 78)
    printed = capsys.readouterr()
    assert printed.out or printed.err
    check(printed.out, printed.err)
    if form:
        json.loads(printed.out)
    if name == "report":
        page = (tmp_path / f"{FOLDER}.html").read_text()
        check(page)
        assert "<script" not in page
        assert "alert(1)" in page


@pytest.mark.parametrize(
    "words",
    [
        ["status", FOLDER],
        ["status", "here", BAD],
        [BAD],
        ["report", ".", "--to", FOLDER],
        ["report", ".", "--trace", FOLDER],
        ["explain", ".", "--role", BAD],
        ["verify", ".", f"--{BAD}"],
        ["prune", ".", "--keep", BAD],
        ["policy", "check", FOLDER],
        ["policy", "check", "hostile.yaml"],
        ["policy", "init", f"{BAD[:8]}policy.yaml"],
        ["patch", "check", FOLDER],
        ["patch", "apply", "."],
        pytest.param(["doctor", BAD, f"--{BAD}"], marks=pytest.mark.megatron),  # which it imports
        ["launch", "--policy", FOLDER, "--", "train.py"],
        ["launch", "--", FOLDER],
        ["launch", "--rdzv-id", BAD, "--", FOLDER],
        ["launch", "--ft-launcher", FOLDER, "--engine", "nvrx", "--", "train.py"],
        ["render", "--engine", BAD, "--", "x"],
        ["render", "--engine", "slurm", "--name", BAD, "--", "x"],
        ["render", "--engine", "jobset", "--image", "x", "--name", BAD, "--", "x"],
        ["render", "--engine", "jobset", "--image", "x", "--mount", BAD, "--", "x"],
        ["render", "--engine", "nvrx", "--nvrx-version", BAD, "--", "x"],
        ["run", FOLDER],
        ["run", f"-{BAD}"],
        ["import-chatlearn", FOLDER, "--to", FOLDER, "--policy", FOLDER],
    ],
    ids=lambda words: ascii(" ".join(words))[1:40],
)
def test_no_command_quotes_what_was_typed_so_that_a_terminal_obeys(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hostile.yaml").write_text(json.dumps({BAD: BAD, "max_restarts": BAD}))
    (tmp_path / "train.py").touch()
    words = [word.replace("\x00", "") for word in words]
    with contextlib.suppress(SystemExit):
        main(words)
    printed = capsys.readouterr()
    assert printed.out or printed.err
    check(printed.out, printed.err)


@pytest.mark.parametrize("name", ["MEGATRON_RESUME_LEASE_TIME", f"MEGATRON_RESUME_{BAD}", "MEGATRON_RESUME_CONFIG"])
def test_no_variable_of_the_environment_is_quoted_so_either(
    name: str, hostile: EventfulJob, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name.replace("\x00", ""), BAD.replace("\x00", ""))
    assert main(["explain", str(hostile.root)]) == 78
    check(capsys.readouterr().err)


OWN = re.compile(r"\x1b\[[0-9;]*m|\r\n")  # rich's own: colours, and the line ends of a terminal


@pytest.mark.parametrize("command", ["status", "explain", "verify"])
def test_a_terminal_gets_our_colours_and_nothing_else(command: str, hostile: EventfulJob) -> None:
    text = on_a_terminal([command, str(hostile.root)])
    assert "\x1b[" in text, "it is one"
    assert "\x1b[31m\\" not in text and "\x1b]0;t" not in text
    rest = OWN.sub("", text)
    assert rest == shown(rest)


def on_a_terminal(words: list[str]) -> str:
    """All that is written to one."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "megatron_resume", *words],
        stdout=theirs,
        stderr=theirs,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"},
    )
    os.close(theirs)
    found = b""
    with contextlib.suppress(OSError):  # EIO: everybody has closed it
        while block := os.read(ours, 65_536):
            found += block
    os.close(ours)
    assert process.wait() in (0, 65, 78)
    return found.decode()
