"""One policy, six engines: what each is told, whole, and against what the engine itself documents."""

import ast
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from engines import CASES, DEFAULT, EVERY_FIELD, GOLDEN, NO_RESTARTS, ONE_NODE, ROOT, TWO_NODES, Case
from manifests import DEFINITIONS, mistakes

from megatron_resume.cli import main
from megatron_resume.cli.launch import ENGINES
from megatron_resume.errors import ConfigError
from megatron_resume.launch import aimaster, jobset, nvrx, pytorchjob, slurm
from megatron_resume.launch.job import Job
from megatron_resume.policy import PHASES, VARIABLE, Policy, policy_of, policy_of_environ

# sbatch(1) of Slurm 22.05, those that a job script of ours could want
SBATCH = {"account", "cpus-per-task", "exclusive", "gpus-per-node", "gres", "job-name", "mem", "no-requeue", "nodes"}
SBATCH |= {"ntasks-per-node", "open-mode", "output", "partition", "qos", "requeue", "signal", "time"}
MANIFESTS = {"pytorchjob": ("PyTorchJob", pytorchjob.FILE), "jobset": ("JobSet", jobset.FILE)}
HANGS = [Policy(), EVERY_FIELD, policy_of({"hang": {"timeout": "10s"}, "grace_period": "1s"}, "short")]

of_kubernetes = pytest.mark.parametrize(
    "case", [case for case in CASES if case.engine in MANIFESTS], ids=lambda case: case.name
)
of_slurm = pytest.mark.parametrize(
    "case", [case for case in CASES if case.engine == "slurm"], ids=lambda case: case.name
)


def manifest(case: Case) -> Any:
    return yaml.safe_load(case.rendered().files[MANIFESTS[case.engine][1]])


def pods(case: Case) -> list[Any]:
    content = manifest(case)["spec"]
    if case.engine == "pytorchjob":
        return [replica["template"]["spec"] for replica in content["pytorchReplicaSpecs"].values()]
    return [content["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_an_engine_is_told_is_what_was_reviewed(case: Case) -> None:
    assert case.text() == case.golden.read_text(), "`make golden` rewrites it"


def test_every_reviewed_file_is_that_of_a_case() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {case.golden.name for case in CASES}


def test_no_reviewed_file_names_a_path_of_this_machine() -> None:
    for path in GOLDEN.iterdir():
        assert str(ROOT) not in path.read_text()
        assert sys.executable not in path.read_text()


# ---- limits: never at the same time as ours


def seconds(text: str, flag: str) -> int:
    words = shlex.split(text)
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, _, value = word.partition("=")
        if name == flag:
            return int(value or following)
    raise AssertionError(f"{flag} is not in {text}")


@pytest.mark.parametrize("policy", HANGS)
@pytest.mark.parametrize("version", nvrx.VERSIONS)
def test_ft_launcher_ends_no_rank_that_the_job_itself_would_still_watch(policy: Policy, version: str) -> None:
    text = nvrx.render(policy, ONE_NODE._replace(nvrx_version=version)).as_shell()
    sections = dict(
        part.split(":") for part in text.partition("--ft-rank-section-timeouts=")[2].partition(" ")[0].split(",")
    )
    ours = {"setup": "setup", "step": "train", "checkpointing": "checkpoint"}
    assert set(sections) == set(ours)
    for section, phase in ours.items():
        assert int(sections[section]) > policy.hang.of(phase) + policy.grace_period  # type: ignore[arg-type]
    for flag in ("--ft-initial-rank-heartbeat-timeout", "--ft-rank-heartbeat-timeout"):
        assert seconds(text, flag) > policy.hang.of("train") + policy.grace_period
    assert seconds(text, "--ft-rank-out-of-section-timeout") > policy.hang.of("rollout") + policy.grace_period
    assert seconds(text, "--workers-stop-timeout") > policy.grace_period


@pytest.mark.parametrize("policy", HANGS)
def test_aimaster_takes_silence_for_a_hang_later_than_the_job_does(policy: Policy) -> None:
    text = aimaster.error_monitoring_args(policy)
    assert seconds(text, "--job-hang-interval") > max(policy.hang.of(phase) for phase in PHASES) + policy.grace_period
    assert seconds(text, "--job-exit-hang-interval") > policy.hang.of("exit") + policy.grace_period


# ---- what an engine cannot do


@pytest.mark.parametrize("engine", ENGINES)
def test_each_field_of_a_policy_is_told_to_an_engine_or_warned_about(engine: str) -> None:
    changed = {
        "max_restarts": 7,
        "hang": {"timeout": "7m"},
        "refill_after": {"commits": 7},
        "no_progress_limit": 7,
        "retry": [7],
        "fatal": [77],
        "grace_period": "7m",
    }
    job = ONE_NODE._replace(nvrx_version="0.7")
    usual = ENGINES[engine](DEFAULT, job)
    for field, value in changed.items():
        rendered = ENGINES[engine](policy_of({field: value}, field), job)
        is_told = rendered.command != usual.command or rendered.files != usual.files
        is_warned = any(warning.startswith(f"{field}: ") for warning in rendered.warnings)
        assert is_told or is_warned, field
        if field not in ("max_restarts", "hang", "grace_period", "no_progress_limit"):
            assert is_warned, field


# ---- ft_launcher


@pytest.mark.parametrize(
    ("release", "flags"), [("0.4.1", "0.4"), ("0.5.0", "0.4"), ("0.6.0", "0.7"), ("0.7.0", "0.7"), ("0.7", "0.7")]
)
def test_the_flags_of_a_release_are_known(release: str, flags: str) -> None:
    assert nvrx.version_of(release) == flags


def test_a_release_that_nobody_has_looked_at_is_refused() -> None:
    with pytest.raises(ConfigError, match="nvidia-resiliency-ext is '0.9.1', whose flags are not known"):
        nvrx.render(DEFAULT, ONE_NODE._replace(nvrx_version="0.9.1"))
    with pytest.raises(ConfigError, match="give --nvrx-version 0.4 or 0.7"):
        nvrx.render(DEFAULT, ONE_NODE)


def test_only_0_7_is_told_of_progress_and_says_that_it_gave_up() -> None:
    old, new = (nvrx.render(DEFAULT, ONE_NODE._replace(nvrx_version=version)) for version in nvrx.VERSIONS)
    assert "--ft-max-no-progress-cycles=5" in new.command  # one more than the job allows itself
    assert "--ft-checkpoint-iteration-file=/ckpt/run 1/latest_checkpointed_iteration.txt" in new.command
    assert new.gave_up == (93,)
    assert "progress" not in old.as_shell()
    assert old.gave_up == ()


def test_without_a_tracker_to_read_ft_launcher_counts_no_cycles_and_that_is_said() -> None:
    job = Job(("train.py", "--lr", "1e-5"), nvrx_version="0.7")
    rendered = nvrx.render(DEFAULT, job)
    assert "--ft-max-no-progress-cycles=0" in rendered.command
    assert any("the command names no --save" in warning for warning in rendered.warnings)


def test_ft_launcher_counts_no_life_that_the_policy_still_allows() -> None:
    patient = policy_of({"max_restarts": 20, "no_progress_limit": 3}, "patient")
    command = nvrx.render(patient, ONE_NODE._replace(nvrx_version="0.7")).command
    assert "--ft-max-no-progress-cycles=22" in command  # 21 lives


@pytest.mark.parametrize("version", nvrx.VERSIONS)
@pytest.mark.parametrize("policy", [DEFAULT, EVERY_FIELD, NO_RESTARTS])
def test_each_flag_is_one_of_the_help_of_ft_launcher(policy: Policy, version: str) -> None:
    documented = json.loads(Path(__file__).with_name("ft_launcher_flags.json").read_text())[version]
    command = nvrx.render(policy, TWO_NODES._replace(nvrx_version=version)).command
    flags = [word.partition("=")[0] for word in command[1 : command.index("--no-python") + 1]]
    assert set(flags) <= set(documented)


# ---- Kubernetes


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


# ---- Slurm


@of_slurm
def test_a_batch_script_has_documented_options_only_and_parses(case: Case) -> None:
    text = case.rendered().files[slurm.FILE]
    options = [line.removeprefix("#SBATCH --").partition("=")[0] for line in text.splitlines() if "#SBATCH" in line]
    assert {"nodes", "signal", "ntasks-per-node"} <= set(options) <= SBATCH
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


@of_slurm
@pytest.mark.parametrize("code", [0, 70, 201])
def test_a_batch_script_launches_on_each_node_and_requeues_what_may_go_on(
    case: Case, code: int, tmp_path: Path
) -> None:
    """Run by bash, with programs in place of srun and scontrol, which no machine without Slurm has."""
    srun = f'printf "%s" "${VARIABLE}" >{tmp_path}/policy; printf "%s\\n" "$@" >{tmp_path}/srun.args; exit {code}'
    program(tmp_path / "srun", srun)
    nodes = '[ "$1" != show ] || [ "$2" != hostnames ] || printf "n0\\nn1\\n"'
    program(tmp_path / "scontrol", f'echo "$@" >>{tmp_path}/scontrol.args; {nodes}')
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "n[0-1]"}
    text = case.rendered().files[slurm.FILE]
    assert subprocess.run(["bash"], input=text, text=True, env=environ).returncode == code
    assert policy_of_environ({VARIABLE: (tmp_path / "policy").read_text()}) == case.policy
    asked = (tmp_path / "scontrol.args").read_text().splitlines()
    assert ("requeue 4711" in asked) is (code >= 128 and case.policy.max_restarts > 0)
    options, shell = (tmp_path / "srun.args").read_text().split("\nbash\n-c\n")
    assert options.splitlines() == ["--kill-on-bad-exit=1", "--cpu-bind=none"]
    assert_launches(shell, case, {"RDZV_HOST": "n0", "RDZV_PORT": "24711", "SLURM_JOB_ID": "4711"})


@pytest.mark.parametrize(("codes", "ends_with"), [((78, 143), 78), ((143, 143), 143), ((0, 0), 0), ((203, 1), 1)])
def test_the_final_code_of_one_node_is_that_of_a_slurm_job(
    codes: tuple[int, int], ends_with: int, tmp_path: Path
) -> None:
    """As srun does: the highest code of all tasks. As scontrol does: a comment is kept, and shown."""
    highest = 'highest=0; for task in 0 1; do TASK=$task bash -c "${@: -1}"; code=$?'
    program(tmp_path / "srun", f'{highest}; [ "$code" -le "$highest" ] || highest=$code; done; exit "$highest"')
    keep = f'[ "$1" != update ] || echo "${{@: -1}}" >{tmp_path}/comment'
    show = f'[ "$2" != job ] || sed "s/^/   /" {tmp_path}/comment'
    program(tmp_path / "scontrol", f'echo "$@" >>{tmp_path}/asked; {keep}; {show}')
    program(tmp_path / "python", f"codes=({codes[0]} {codes[1]}); exit ${{codes[$TASK]}}")
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "n[0-1]"}
    text = slurm.render(DEFAULT, TWO_NODES).files[slurm.FILE]
    assert subprocess.run(["bash"], input=text, text=True, env=environ).returncode == ends_with
    assert ("requeue 4711" in (tmp_path / "asked").read_text().splitlines()) is (ends_with >= 128)


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


def assert_launches(shell: str, case: Case, environ: dict[str, str]) -> None:
    """The shell line of a node is a `launch` that our own command line accepts, with the same job in it."""
    printed = subprocess.run(
        ["bash", "-c", f'python() {{ printf "%s\\0" "$@"; }}\n{shell.replace("exec ", "")}'],
        env={"PATH": "/usr/bin:/bin", **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    words = printed.stdout.split("\0")[:-1]
    assert words[:3] == ["-m", "megatron_resume", "launch"]
    from megatron_resume.cli.app import parser

    args = parser().parse_args(words[2:])
    assert tuple(args.command[1:]) == case.job.command
    assert (args.nnodes, args.nproc_per_node) == (case.job.nnodes, case.job.nproc_per_node)
    if case.job.nnodes > 1:
        host, _, port = args.rdzv_endpoint.rpartition(":")
        assert host and 0 < int(port) < 65_536 and args.rdzv_id


# ---- AIMaster

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


# ---- the command


def test_render_prints_the_line_the_files_and_the_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "--engine", "slurm", "--nproc-per-node", "8", "--", *ONE_NODE.command]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("sbatch job.sbatch\n\n# job.sbatch\n#!/bin/bash\n")
    assert "# note: grace_period: " in printed


def test_render_writes_the_files_where_it_is_told_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["render", "--engine", "jobset", "--image", "i", "--to", str(tmp_path / "new")]
    assert main([*command, "--", "train.py"]) == 0
    assert yaml.safe_load((tmp_path / "new" / "jobset.yaml").read_text())["kind"] == "JobSet"
    assert f"wrote {tmp_path}/new/jobset.yaml" in capsys.readouterr().out


def test_render_of_torchrun_is_what_launch_executes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "--engine", "torchrun", "--", "train.py"]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith(f"TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 {sys.executable} -m torch.distributed.run ")


def test_several_nodes_need_a_place_to_meet(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "--engine", "torchrun", "--nnodes", "2", "--", "train.py"]) == 78
    assert "give --rdzv-endpoint HOST:PORT and --rdzv-id NAME, the same on every node" in capsys.readouterr().err


def test_launch_without_ft_launcher_says_how_to_get_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "ft_launcher")
    assert main(["launch", "--engine", "nvrx", "--ft-launcher", missing, "--", __file__]) == 78
    assert f"{missing} is no program that could be started; install nvidia-resiliency-ext" in capsys.readouterr().err


def test_the_version_of_ft_launcher_is_that_of_its_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program(tmp_path / "ft_launcher", "exit 1")
    program(tmp_path / "python", "echo 0.7.0")
    command = ["render", "--engine", "nvrx", "--ft-launcher", str(tmp_path / "ft_launcher")]
    assert main([*command, "--", "train.py"]) == 0
    assert "--ft-max-no-progress-cycles" in capsys.readouterr().out
    (tmp_path / "python").unlink()
    assert main([*command, "--", "train.py"]) == 78
    assert "the version of ft_launcher is not known" in capsys.readouterr().err


def test_launch_takes_the_policy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, '{"max_restarts": 9}')
    assert main(["render", "--engine", "torchrun", "--", "train.py"]) == 0
    assert "--max-restarts=9" in capsys.readouterr().out
    monkeypatch.setenv(VARIABLE, '{"max_restart": 9}')
    assert main(["render", "--engine", "torchrun", "--", "train.py"]) == 78
    assert "max_restart is not known; write max_restarts" in capsys.readouterr().err
