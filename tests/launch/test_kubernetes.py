"""Manifests of PyTorchJob and JobSet: what the published schemas allow, and what a pod is to do."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from megatron_resume.cli.launch import ENGINES
from megatron_resume.errors import ConfigError
from megatron_resume.launch import jobset, pytorchjob
from megatron_resume.policy import VARIABLE, policy_of_environ
from support.engines import CASES, DEFAULT, ONE_NODE, Case
from support.manifests import DEFINITIONS, mistakes
from support.node_shell import assert_launches

MANIFESTS = {"pytorchjob": ("PyTorchJob", pytorchjob.FILE), "jobset": ("JobSet", jobset.FILE)}

of_kubernetes = pytest.mark.parametrize(
    "case", [case for case in CASES if case.engine in MANIFESTS], ids=lambda case: case.name
)


def manifest(case: Case) -> Any:
    return yaml.safe_load(case.rendered().files[MANIFESTS[case.engine][1]])


def pods(case: Case) -> list[Any]:
    content = manifest(case)["spec"]
    if case.engine == "pytorchjob":
        return [replica["template"]["spec"] for replica in content["pytorchReplicaSpecs"].values()]
    return [content["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]]


@of_kubernetes
def test_a_manifest_is_what_the_published_schema_allows(case: Case) -> None:
    kind, _ = MANIFESTS[case.engine]
    assert list(mistakes(manifest(case), kind, kind)) == []


def test_the_check_of_manifests_sees_a_misspelt_a_missing_and_a_wrong_field() -> None:
    content = manifest(next(case for case in CASES if case.name == "jobset.default"))
    job = content["spec"]["replicatedJobs"][0]["template"]["spec"]
    job["backofLimit"] = job.pop("backoffLimit")
    del content["spec"]["failurePolicy"]["rules"][0]["action"]
    job["template"]["spec"]["restartPolicy"] = "ExitCode"
    job["completions"] = "2"
    found = "\n".join(mistakes(content, "JobSet", "JobSet"))
    assert "spec.backofLimit: JobSpec has no such field" in found
    assert "rules[0].action: FailurePolicyRule needs it" in found
    assert "restartPolicy: 'ExitCode' is none of" in found
    assert "completions: '2' is no integer" in found


def test_the_tables_name_where_they_come_from() -> None:
    text = Path(__file__).with_name("kubernetes_fields.json").read_text()
    assert "Apache License 2.0" in text
    assert {kind for kind, _ in MANIFESTS.values()} <= set(DEFINITIONS)


@of_kubernetes
def test_a_pod_is_given_the_policy_its_grace_and_a_shell_line_that_launches(case: Case) -> None:
    for pod in pods(case):
        (container,) = pod["containers"]
        environ = {one["name"]: one.get("value") for one in container["env"]}
        assert policy_of_environ({VARIABLE: environ[VARIABLE]}) == case.policy
        assert pod["terminationGracePeriodSeconds"] > case.policy.grace_period
        shell, option, script = container["command"]
        assert (shell, option) == ("bash", "-c")
        assert_launches(script, case, {"MASTER_ADDR": "rlhf-x1-master-0", "MASTER_PORT": "23456", "JOBSET_NAME": "r"})


@of_kubernetes
def test_exit_codes_decide_whether_pods_are_made_again(case: Case) -> None:
    spec, restarts = manifest(case)["spec"], case.policy.max_restarts > 0
    if case.engine == "pytorchjob":
        policies = {replica["restartPolicy"] for replica in spec["pytorchReplicaSpecs"].values()}
        assert policies == {"ExitCode" if restarts else "Never"}
        return
    job = spec["replicatedJobs"][0]["template"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"] == {"operator": "In", "values": list(range(1, 128))}
    assert spec["failurePolicy"]["rules"][0]["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert (spec["failurePolicy"]["maxRestarts"] > case.policy.max_restarts) is restarts


def test_text_that_kubernetes_would_fill_in_reaches_the_script_as_it_is() -> None:
    job = ONE_NODE._replace(command=("train.py", "--note", "$(JOBSET_NAME)"))
    text = jobset.render(DEFAULT, job).files[jobset.FILE]
    assert "--note '$$(JOBSET_NAME)'" in text


@pytest.mark.parametrize("note", ["$(HOSTNAME)", "$$", "$$(HOSTNAME)", "$$$(HOSTNAME)", "a$", "$(", "$HOME$$"])
def test_dollars_reach_the_script_as_they_are(note: str) -> None:
    job = ONE_NODE._replace(command=("train.py", "--note", note))
    content = yaml.safe_load(jobset.render(DEFAULT, job).files[jobset.FILE])["spec"]
    (container,) = content["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"]
    assert f"--note {shlex.quote(note)}\n" in filled_in(container["command"][2])


def filled_in(text: str) -> str:
    """As Kubernetes does: third_party/forked/golang/expansion/expand.go, where every variable is known."""
    return re.sub(r"\$(\$|\([^)]*\)|\()", lambda found: {"$": "$", "(": "$("}.get(found[1], "filled in"), text)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"image": None}, "give --image IMAGE"),
        ({"name": "Run_1"}, "--name is 'Run_1'; Kubernetes needs 1 to 40 lower case letters"),
        ({"mounts": ("ckpt",)}, "--mount is 'ckpt'; write the name of a volume claim"),
        ({"mounts": ("ckpt:relative",)}, "--mount is 'ckpt:relative'"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused_before(wrong: dict[str, Any], said: str) -> None:
    for engine in MANIFESTS:
        with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
            ENGINES[engine](DEFAULT, ONE_NODE._replace(**wrong))
