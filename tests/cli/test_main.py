"""The command line as a whole."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from megatron_resume.cli import main
from megatron_resume.errors import DamagedError
from support.chatlearn_files import ChatLearnJob
from support.job_on_disk import JobOnDisk


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    commands = ("run", "status", "explain", "verify", "prune", "doctor", "import-chatlearn", "patch")
    assert all(command in text for command in commands)


def test_no_command_is_a_usage_error_that_no_launcher_restarts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 2


def test_a_named_error_is_a_message_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def damaged(command: list[str], *, json: bool) -> int:
        raise DamagedError("iter_0000040.a0001 holds other bytes than were committed")

    monkeypatch.setattr("megatron_resume.cli.doctor.doctor", damaged)
    assert main(["doctor"]) == 65
    assert capsys.readouterr().err == ("megatron-resume: iter_0000040.a0001 holds other bytes than were committed\n")


def test_the_commands_are_known_without_importing_any_of_them() -> None:
    program = "import sys; from megatron_resume.cli.app import parser; parser();"
    program += "print(sorted({'rich', 'torch', 'msgspec', 'importlib.metadata'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", ["status", "explain", "verify"])
def test_looking_at_a_job_needs_neither_torch_nor_megatron(name: str, bare: str, tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-m", "megatron_resume", name, str(tmp_path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": bare})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["directory"] == str(tmp_path)


def test_an_import_runs_on_a_machine_without_torch_and_megatron(bare: str, tmp_path: Path) -> None:
    job = ChatLearnJob(tmp_path / "job")
    job.save(2)
    models = [word for role, path in job.models.items() for word in (f"--{role}-load", str(path))]
    command = [sys.executable, "-S", "-m", "megatron_resume", "import-chatlearn", str(job.data), *models]
    command += ["--to", str(tmp_path / "new")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": bare})
    assert (done.returncode, done.stderr) == (0, "")
    assert "next episode 1, 16 samples consumed" in done.stdout


def test_status_of_a_folder_that_is_not_there_exits_78(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "/no/such/folder"]) == 78
    assert "/no/such/folder" in capsys.readouterr().err


LOOKING = [("status",), ("explain",), ("verify",), ("prune", "--keep", "2")]


def called(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "megatron_resume", *arguments]
    return subprocess.run(command, text=True, stderr=subprocess.PIPE, **options)


@pytest.mark.parametrize("flags", [(), ("--json",)], ids=["text", "json"])
def test_whoever_reads_may_stop_before_the_end(job: JobOnDisk, flags: tuple[str, ...]) -> None:
    job.save(job.attempt(), 2)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as out:
        done = called("status", str(job.root), *flags, stdout=out)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("flags", [(), ("--json",)], ids=["text", "json"])
def test_a_full_disk_behind_the_output_is_a_message(job: JobOnDisk, flags: tuple[str, ...]) -> None:
    job.save(job.attempt(), 2)
    with open("/dev/full", "w") as full:
        done = called("status", str(job.root), *flags, stdout=full)
    assert done.returncode != 0
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("flags", [(), ("--json",)], ids=["text", "json"])
def test_names_that_the_terminal_cannot_show_are_escaped(tmp_path: Path, flags: tuple[str, ...]) -> None:
    job = JobOnDisk(tmp_path / "é")
    job.save(job.attempt(), 2)
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "300"}
    done = called("status", str(job.root), *flags, stdout=subprocess.PIPE, env=ascii_only)
    assert done.returncode == 0, done.stderr
    assert "\\xe9" in done.stdout or "\\u00e9" in done.stdout


def test_on_a_terminal_of_no_width_something_is_printed(job: JobOnDisk) -> None:
    job.save(job.attempt(), 2)
    done = called("status", str(job.root), stdout=subprocess.PIPE, env={**os.environ, "COLUMNS": "0"})
    assert "A start here: resume from iteration 2" in done.stdout


@pytest.mark.parametrize(
    "command", [("status",), ("explain",), ("verify",), ("prune", "--keep", "2")], ids=lambda c: c[0]
)
def test_an_error_is_json_too_where_that_was_asked_for(
    command: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, str(tmp_path / "nowhere"), "--json"]) == 78
    report = json.loads(capsys.readouterr().out)
    assert report["exit_code"] == 78
    assert "nowhere" in report["error"]


@pytest.mark.parametrize(
    "command", [("status",), ("explain",), ("verify",), ("prune", "--keep", "2")], ids=lambda c: c[0]
)
def test_an_empty_name_is_not_the_working_folder(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([*command, ""])
    assert end.value.code == 2
    assert "is empty; name a folder" in capsys.readouterr().err
