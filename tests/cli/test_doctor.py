"""`megatron-resume doctor` on this machine, and on one without torch and Megatron."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from megatron_resume.cli.doctor import HookReport, Report
from megatron_resume.cli.environment import Environment
from megatron_resume.cli.traps import Trap

ENVIRONMENT = Environment(python="3.12.3")
OK = HookReport("module.function", True, "")
DOCTOR = ["-m", "megatron_resume", "doctor"]


def call(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environ, timeout=300)


@pytest.fixture(scope="module")
def here() -> dict[str, Any]:
    done = call(*DOCTOR, "--json", "train.py", "--async-save", "--json")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_every_hook_can_be_installed_on_the_megatron_of_the_tests(here: dict[str, Any]) -> None:
    assert here["hooks"]
    assert [hook for hook in here["hooks"] if not hook["installable"]] == []


def test_the_versions_are_those_that_are_installed(here: dict[str, Any]) -> None:
    from importlib.metadata import version

    assert here["environment"]["torch"] == version("torch")
    assert here["environment"]["megatron_core"] == version("megatron-core")


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
