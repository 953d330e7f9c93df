"""One policy, six engines: what each is told, whole, and against what the engine itself documents."""

import json
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from megatron_resume.cli import main
from megatron_resume.cli.launch import ENGINES
from megatron_resume.errors import ConfigError
from megatron_resume.launch import aimaster, nvrx
from megatron_resume.launch.job import Job
from megatron_resume.policy import PHASES, VARIABLE, Policy, policy_of
from support import ROOT
from support.engines import CASES, DEFAULT, EVERY_FIELD, GOLDEN, NO_RESTARTS, ONE_NODE, TWO_NODES, Case
from support.node_shell import program

HANGS = [Policy(), EVERY_FIELD, policy_of({"hang": {"timeout": "10s"}, "grace_period": "1s"}, "short")]


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
        "stop_signals": ["SIGTERM", "SIGUSR2"],
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


def test_what_is_written_is_private_and_secrets_in_it_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.sbatch").symlink_to(tmp_path / "elsewhere")
    script = ("train.py", "--lr", "1", "--oss-sk=hunter2", "--hook", "https://host?access_token=hunter2")
    assert main(["render", "--engine", "slurm", "--to", str(tmp_path), "--", *script]) == 0
    assert (tmp_path / "job.sbatch").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "elsewhere").exists()
    (note,) = [line for line in capsys.readouterr().out.splitlines() if "stand in what is rendered" in line]
    assert note.startswith("# note: the values of oss_sk, hook stand")
    assert "hunter2" not in note
