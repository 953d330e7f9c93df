"""`make` on a machine that lacks something says so in a sentence."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("bash", "env", "dirname", "awk", "df", "touch", "rm")
NO_PYTHON = "make: no Python 3.12 was found"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A checkout on a machine whose PATH has the usual tools and no Python."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "tools").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / "bin" / tool).symlink_to(found)
    shutil.copy(ROOT / "tools" / "venv.sh", tmp_path / "tools")
    return tmp_path


def set_up(machine: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": str(machine / "bin"), "HOME": str(machine)} | environ
    return subprocess.run([machine / "tools" / "venv.sh"], capture_output=True, text=True, env=environ)


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)


def test_without_python_3_12_it_says_what_to_type(machine: Path) -> None:
    done = set_up(machine)
    assert done.returncode == 78
    assert NO_PYTHON in done.stderr
    assert "make PYTHON=/path/to/python3.12" in done.stderr


def test_a_pyenv_shim_without_a_version_behind_it_is_no_python(machine: Path) -> None:
    program(machine / "bin" / "python3.12", "echo 'pyenv: python3.12: command not found' >&2; exit 127")
    assert NO_PYTHON in set_up(machine).stderr


def test_a_python_of_another_version_that_was_asked_for_is_named(machine: Path) -> None:
    program(machine / "old", "exit 1")
    done = set_up(machine, PYTHON=str(machine / "old"))
    assert f"PYTHON={machine / 'old'} is not Python 3.12" in done.stderr


def test_a_disk_that_is_too_small_is_named_before_anything_is_downloaded(machine: Path) -> None:
    program(machine / "bin" / "python3.12", 'case "$1" in -c) exit 0;; --version) echo "Python 3.12.9";; esac')
    (machine / "bin" / "df").unlink()
    program(machine / "bin" / "df", "echo Filesystem; echo '/dev/sda 9 9 2097152 9% /'")
    done = set_up(machine)
    assert done.returncode == 78
    assert "2 GB are free here" in done.stderr


def test_an_interrupted_installation_is_begun_anew(machine: Path) -> None:
    (machine / ".venv" / "bin").mkdir(parents=True)
    program(machine / ".venv" / "bin" / "python", "exit 0")
    (machine / ".venv" / ".unfinished").touch()
    assert NO_PYTHON in set_up(machine).stderr


def test_an_existing_environment_is_kept(machine: Path) -> None:
    (machine / ".venv" / "bin").mkdir(parents=True)
    (machine / ".venv/lib/python3.12/site-packages/megatron").mkdir(parents=True)
    program(machine / ".venv" / "bin" / "python", 'echo "$@" >> calls')
    done = set_up(machine)
    assert done.returncode == 0, done.stderr
    assert "bringing .venv up to date" in done.stdout
    assert "pip install" in (machine / "calls").read_text()
    assert not (machine / ".venv" / ".unfinished").exists()


def test_continuous_integration_calls_make_test() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert (ROOT / ".ci" / "run").read_text().endswith("exec make test\n")
