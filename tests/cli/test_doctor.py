"""`megatron-resume doctor` on this machine, and on one without torch and Megatron."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from megatron_resume.cli import chatlearn_calls
from megatron_resume.cli.doctor import HookReport, Report
from megatron_resume.cli.environment import Environment, look
from megatron_resume.cli.traps import Trap
from support import PROGRAMS
from support.pool import MEGATRON, Pool, run
from support.runs import once

ENVIRONMENT = Environment(python="3.12.3")
DOUBLE = Path(__file__).parents[1] / "chatlearn_double"
OK = HookReport("module.function", True, "")
DOCTOR = ["-m", "megatron_resume", "doctor"]


def call(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environ, timeout=300)


def forked(pool: Pool, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Without the seconds of imports."""
    return run(pool, PROGRAMS / "cli.py", *arguments, environ={**os.environ, **environ}, kind=MEGATRON)


@pytest.fixture(scope="module")
def here(shared_folder: Path) -> dict[str, Any]:
    told = shared_folder / "doctor.json"

    def ask() -> None:
        done = call(*DOCTOR, "--json", "train.py", "--async-save", "--json")
        assert done.returncode == 0, done.stderr
        told.write_text(done.stdout)

    once(told, ask)
    report: dict[str, Any] = json.loads(told.read_text())
    return report


@pytest.mark.megatron
def test_every_hook_can_be_installed_on_the_megatron_of_the_tests(here: dict[str, Any]) -> None:
    assert here["hooks"]
    assert [hook for hook in here["hooks"] if not hook["installable"]] == []


@pytest.mark.megatron
def test_the_versions_are_those_that_are_installed(here: dict[str, Any]) -> None:
    from importlib.metadata import version

    assert here["environment"]["torch"] == version("torch")
    assert here["environment"]["megatron_core"] == version("megatron-core")


@pytest.mark.megatron
def test_the_arguments_of_the_script_are_examined(here: dict[str, Any]) -> None:
    assert here["environment"]["arguments"] == ["--async-save", "--json"]
    assert "async save switched off" in [trap["name"] for trap in here["traps"]]


def test_without_torch_and_megatron_it_says_so_and_exits_78(bare: str) -> None:
    done = call("-S", *DOCTOR, PYTHONPATH=bare)
    assert done.returncode == 78
    assert "torch is not installed here" in done.stdout
    assert "Megatron is not found here" in done.stdout
    assert "Traceback" not in done.stderr


def test_nothing_is_said_on_standard_output_but_json(bare: str) -> None:
    assert json.loads(call("-S", *DOCTOR, "--json", PYTHONPATH=bare).stdout)["blocked"] is True


def test_chatlearn_is_looked_at_where_it_is_here_and_not_imported(
    pool: Pool, here: dict[str, Any], tmp_path: Path
) -> None:
    assert here["environment"]["chatlearn"] is None
    assert here["chatlearn"] == []
    changed = shutil.copytree(DOUBLE / "chatlearn", tmp_path / "chatlearn")
    (changed / "__init__.py").write_text("raise AssertionError('imported')")
    (changed / "utils").mkdir()
    (changed / "utils" / "version.py").write_text('VERSION = "1.0.9"\n')
    manager, engine = changed / "checkpoint" / "checkpoint_manager.py", changed / "runtime" / "engine.py"
    manager.write_text(manager.read_text().replace("train_iter", "iteration"))
    engine.write_text(engine.read_text().replace("_resume_from_data_checkpoint", "_resume"))
    done = forked(pool, "doctor", "--json", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, "a job on Megatron alone is not blocked: " + done.stderr
    report = json.loads(done.stdout)
    assert (report["environment"]["chatlearn"], report["environment"]["chatlearn_path"]) == ("1.0.9", str(changed))
    assert len(report["chatlearn"]) == 6
    assert [hook["remark"] for hook in report["chatlearn"] if not hook["installable"]] == [
        f"it has no parameter train_iter in {manager}",
        f"there is no such function in {engine}",
    ]


def test_chatlearn_has_a_table_where_it_is_here(pool: Pool) -> None:
    printed = forked(pool, "doctor", PYTHONPATH=str(DOUBLE)).stdout
    assert "hook on ChatLearn" in printed
    assert "\u2502 chatlearn             \u2502 unknown" in printed
    assert "cannot be installed" not in printed


def test_another_project_of_that_name_is_none(tmp_path: Path) -> None:
    (tmp_path / "chatlearn").mkdir()
    (tmp_path / "chatlearn" / "__init__.py").touch()
    (tmp_path / "train.py").touch()
    assert look([str(tmp_path / "train.py")]).chatlearn is None
    (tmp_path / "chatlearn" / "runtime").mkdir()
    assert look([str(tmp_path / "train.py")]).chatlearn == "unknown"


@pytest.mark.torch
def test_every_call_that_the_chatlearn_of_the_tests_has_is_found() -> None:
    """On which the hooks are installed in other tests."""
    from megatron_resume.chatlearn import hook_set

    assert {chatlearn_calls.problem(DOUBLE / "chatlearn", hook) for hook in hook_set.hooks} == {""}


@pytest.mark.parametrize(
    ("hooks", "found", "blocked"),
    [
        ([OK], [], False),
        ([OK], [Trap("t", False, "", "")], False),
        ([OK], [Trap("t", True, "", "")], True),
        ([OK, HookReport("module.gone", False, "does not exist")], [], True),
    ],
)
def test_a_report_blocks_if_a_trap_does_or_a_hook_is_missing(
    hooks: list[HookReport], found: list[Trap], blocked: bool
) -> None:
    assert Report(ENVIRONMENT, hooks, found).blocked is blocked
