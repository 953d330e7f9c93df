"""The command line as a whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from chatlearn_files import ChatLearnJob

from megatron_resume.cli import main
from megatron_resume.errors import DamagedError


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    commands = ("run", "status", "explain", "verify", "prune", "doctor", "import-chatlearn")
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
