"""AIMaster: one string on three ways in, and the SDK itself asked whether it takes the snippet."""

import ast
import json
import subprocess
from pathlib import Path

import pytest

from megatron_resume.launch import aimaster
from megatron_resume.policy import VARIABLE, Policy, policy_of_environ
from support import ROOT
from support.engines import DEFAULT, EVERY_FIELD, TWO_NODES, Case
from support.node_shell import assert_launches

DLC = ROOT / ".venv-dlc"


@pytest.mark.skipif(not (DLC / ".installed").exists(), reason="there is no .venv-dlc; `make venv-dlc` makes it")
@pytest.mark.parametrize("policy", [DEFAULT, EVERY_FIELD])
def test_the_snippet_makes_the_settings_with_the_sdk_itself(policy: Policy, tmp_path: Path) -> None:
    files = aimaster.render(policy, TWO_NODES).files
    (tmp_path / "snippet.py").write_text(files["settings.py"] + "import json\nprint(json.dumps(request.to_map()))\n")
    made = subprocess.run([DLC / "bin" / "python", tmp_path / "snippet.py"], capture_output=True, text=True, check=True)
    request = json.loads(made.stdout)
    assert request["Settings"] == json.loads(files["settings.json"])["Settings"]
    assert request["UserCommand"] == aimaster.user_command(policy, TWO_NODES)
    assert request["JobType"] == "PyTorchJob"


def test_the_command_line_the_snippet_and_the_openapi_settings_hold_the_same_string() -> None:
    rendered = aimaster.render(EVERY_FIELD, TWO_NODES)
    args = rendered.command[rendered.command.index("--aimaster_args") + 1]
    assert args == json.loads(rendered.files["settings.json"])["Settings"]["ErrorMonitoringArgs"]
    (call,) = [
        node
        for node in ast.walk(ast.parse(rendered.files["settings.py"]))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "JobSettings"
    ]
    assert {word.arg: ast.literal_eval(word.value) for word in call.keywords}["error_monitoring_args"] == args


@pytest.mark.parametrize("policy", [DEFAULT, EVERY_FIELD])
def test_dlc_starts_a_launch_with_the_policy_on_each_node(policy: Policy) -> None:
    case = Case("", "aimaster", policy, TWO_NODES)
    shell = aimaster.user_command(policy, TWO_NODES)
    exported = subprocess.run(
        ["bash", "-c", f'python() {{ printf "%s" "${VARIABLE}"; }}\n{shell.replace("exec ", "")}'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert policy_of_environ({VARIABLE: exported.stdout}) == policy
    assert_launches(shell, case, {"MASTER_ADDR": "dlc1-master-0", "MASTER_PORT": "23456"})
