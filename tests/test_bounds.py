"""Numbers, names and files from outside have bounds, and what is beyond them is refused by its own name."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megatron_resume import plain_yaml
from megatron_resume.checkpoint.launch_key import LAUNCH_ID, MAX_NAME, launch_key, shared_by_all_ranks
from megatron_resume.checkpoint.leases import Lease, claim, read_lease
from megatron_resume.cli import main
from megatron_resume.config import CONFIG_VARIABLE, resolve
from megatron_resume.errors import ConfigError
from megatron_resume.launch.job import Job
from megatron_resume.plain_yaml import MAX_BYTES, load_yaml
from megatron_resume.policy import VARIABLE, Policy, policy_of_environ, read_policy
from support.job_on_disk import JobOnDisk

NUMBERS = [
    *("resume_lease_time", "max_uncommitted_saves", "max_data_ckpt_nums"),
    *("load_data_checkpoint_iteration", "load_data_checkpoint_attempt"),
]
HUGE = ["1e20", "100000000000000000000", "9" * 5_000, "-1", "0", "1.5", "inf", "nan", "0x10", "1_000", "\u0661\u0662"]


def as_flag(key: str, text: str, folder: Path) -> object:
    return resolve({key: text, "data_checkpoint_path": str(folder)}, {})


def as_variable(key: str, text: str, folder: Path) -> object:
    name = f"MEGATRON_RESUME_{key.removeprefix('resume_').upper()}"
    return resolve({"data_checkpoint_path": str(folder)}, {name: text})


def as_yaml(key: str, text: str, folder: Path) -> object:
    (folder / "rlhf.yaml").write_text(f"runtime:\n  {key}: {text}\n")
    return resolve({"data_checkpoint_path": str(folder)}, {CONFIG_VARIABLE: str(folder / "rlhf.yaml")})


@pytest.mark.parametrize("text", HUGE, ids=lambda text: ascii(text)[:12])
@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("given", [as_flag, as_variable, as_yaml])
def test_a_number_that_no_job_can_mean_is_refused_by_its_name(
    given: Callable[[str, str, Path], Any], key: str, text: str, tmp_path: Path
) -> None:
    if given is as_yaml and text in ("0x10", "1_000"):
        pytest.skip("YAML has such numbers")
    if text == "\u0661\u0662":  # decimal digits, which Python reads as 12
        found = getattr(given(key, text, tmp_path), key)
        assert found == 12
        return
    with pytest.raises(ConfigError) as error:
        given(key, text, tmp_path)
    said = str(error.value)
    names = (key, key.replace("_", "-"), key.removeprefix("resume_").upper(), "line 2")
    assert any(name in said for name in names)
    assert len(said) < 1_500


def test_the_longest_lease_time_is_one_that_a_thread_can_wait_for(tmp_path: Path) -> None:
    longest = as_flag("resume_lease_time", "86400", tmp_path)
    assert longest.resume_lease_time / 3 < threading.TIMEOUT_MAX
    with pytest.raises(ConfigError, match="resume-lease-time"):
        as_flag("resume_lease_time", "86401", tmp_path)


@pytest.mark.parametrize("option", ["--nnodes", "--nproc-per-node", "--gpus-per-node"])
@pytest.mark.parametrize("number", ["-1", "99999999999", "9" * 4_000])
def test_no_launch_has_more_nodes_or_ranks_than_there_are(
    option: str, number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    meet = ["--rdzv-endpoint", "h:1", "--rdzv-id", "x"]
    assert main(["render", "--engine", "slurm", f"{option}={number}", *meet, "--", "train.py"]) == 78
    said = capsys.readouterr().err
    assert f"{option} is" in said
    assert len(said) < 500


# ---- names of launches

NAMES = {
    "70 kB": "x" * 70_000,
    "2 MB": "y" * (2 << 20),
    "not UTF-8": "run\udcff",
    "control characters": "run\x1b[31m\n",
    "just too long": "z" * (MAX_NAME + 1),
}


@pytest.mark.parametrize("what", NAMES)
@pytest.mark.parametrize("variable", [LAUNCH_ID, "SLURM_JOB_ID", "TORCHELASTIC_RUN_ID", "MASTER_PORT"])
def test_any_name_of_a_launch_can_be_stored_and_is_told_from_others(what: str, variable: str, job: JobOnDisk) -> None:
    environ = {"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", variable: NAMES[what]}
    environ |= {"SLURM_JOB_ID": "7"} if variable == "MASTER_PORT" else {}
    key, start = launch_key(environ), shared_by_all_ranks(environ)
    assert start is not None
    job.attempt()
    claim(job.root, 1, "policy", Lease(holder=key, start=start))
    lease = read_lease(job.root, 1, "policy")
    assert lease is not None
    assert (lease.holder, lease.start) == (key, start)
    assert len(start) < 4 * MAX_NAME
    other = {**environ, variable: NAMES[what] + "x"}
    assert shared_by_all_ranks(other) != start
    if variable != "MASTER_PORT":
        assert launch_key(other).job != key.job == launch_key(environ).job


def test_a_name_of_ordinary_length_stays_as_it_is() -> None:
    assert launch_key({LAUNCH_ID: "run-1"}).job == "run-1"
    assert launch_key({LAUNCH_ID: "x" * MAX_NAME}).job == "x" * MAX_NAME


def test_a_name_that_no_command_can_carry_is_refused_by_its_option() -> None:
    with pytest.raises(ConfigError, match=r"--rdzv-id has 70000 characters"):
        Job(("train.py",), job_id="x" * 70_000).check()


# ---- files


def laughs(last: str) -> str:
    """Ten levels of ten aliases each."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    return "\n".join([*lines, last, ""])


def merges(last: str) -> str:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 10)]
    return "\n".join([*lines, last, ""])


MAX_VALUES = 1_000  # instead of as many as it takes seconds to read
FILES = {
    "laughs": (laughs("max_restarts: 1"), "once its aliases are unfolded"),
    "merges": (merges("max_restarts: 1"), "once its aliases are unfolded"),
    "itself": ("hang: &h {timeout: *h}\n", "holds itself by an alias"),
    "itself in a list": ("retry: &r [*r]\n", "holds itself by an alias"),
    "twice": ("max_restarts: 1\nmax_restarts: 100\n", "line 2 has the key 'max_restarts' a second time"),
    "twice below": ("hang:\n  timeout: 1h\n  timeout: 2h\n", "line 3 has the key 'timeout' a second time"),
    "twice, quoted": ("max_restarts: 1\n'max_restarts': 100\n", "a second time"),
    "a tag": ("max_restarts: !!python/object/apply:os.system ['touch x']\n", "cannot be read as YAML"),
    "another tag": ("max_restarts: !secret x\n", "cannot be read as YAML"),
    "no truth": ("max_restarts: !!bool x\n", "cannot be read as YAML"),
    "no time": ("max_restarts: !!timestamp x\n", "cannot be read as YAML"),
    "no number": ('max_restarts: !!int ""\n', "cannot be read as YAML"),
    "two documents": ("max_restarts: 1\n---\nmax_restarts: 2\n", "cannot be read as YAML"),
    "base 60": ("max_restarts: " + "1" + ":59" * 300_000, "has a number of 900001 characters"),
    "digits": ("max_restarts: " + "9" * 500_000, "has a number of 500000 characters"),
    "deep": ("max_restarts: " + "[" * 10_000, "nested too deeply"),
    "many": ("retry: [" + "1," * (MAX_VALUES + 1) + "]", f"holds more than {MAX_VALUES} values"),
    "long": ("#" * (MAX_BYTES + 1), f"has more than {MAX_BYTES} bytes"),
    "no text": ("max_restarts: \x00", "cannot be read as YAML"),
}


@pytest.mark.parametrize("what", FILES)
def test_a_policy_that_would_unfold_or_says_a_thing_twice_is_refused_with_what_it_is(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_yaml, "MAX_VALUES", MAX_VALUES)
    text, said = FILES[what]
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_policy(str(path))
    assert said in str(error.value)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 1_000


IN_RLHF = {
    "laughs": (laughs("runtime: {}"), "once its aliases are unfolded"),
    "merges": (merges("runtime: {<<: *a9}"), "once its aliases are unfolded"),
    "two sections": ("runtime: {resume_role: policy}\nruntime: {resume_role: value}\n", "'runtime' a second time"),
    "twice": ("runtime:\n  resume_role: policy\n  resume_role: value\n", "'resume_role' a second time"),
    "itself": ("runtime: &r {resume_role: *r}\n", "holds itself"),
}


@pytest.mark.parametrize("what", IN_RLHF)
def test_so_is_a_configuration_of_chatlearn(what: str, tmp_path: Path) -> None:
    text, said = IN_RLHF[what]
    path = tmp_path / "rlhf.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        resolve({}, {CONFIG_VARIABLE: str(path)})
    assert said in str(error.value)
    assert str(path) in str(error.value)


def test_what_chatlearn_alone_reads_may_be_as_it_takes_it(tmp_path: Path) -> None:
    path = tmp_path / "rlhf.yaml"
    path.write_text(
        "models:\n  policy: &p {lr: 1, lr: 2}\n  value: *p\nprompt: " + "x" * 20_000 + "\n"
        "runtime: &r\n  <<: {resume_role: value}\n  data_checkpoint_path: /x\n"
    )
    config = resolve({}, {CONFIG_VARIABLE: str(path)})
    assert (config.resume_role, config.data_checkpoint_path) == ("value", "/x")


@pytest.mark.parametrize("read", [read_policy, load_yaml])
def test_a_fifo_in_the_place_of_a_file_is_waited_for_by_nobody(read: Callable[[str], object], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match="is no file"):
        read(str(tmp_path / "fifo"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{" + '"a":[' * 50_000, "is no JSON|nested"),
        ('{"max_restarts": 1e999}', VARIABLE),
        (json.dumps({"retry": ["E" * 100_000]}), "retry names"),
        (json.dumps({"fatal": [1] * 1_000}), "fatal names 1000 failures"),
        (json.dumps({"refill_after": {"commits": 10**30}}), "refill_after.commits"),
        (json.dumps({"hang": {"timeout": "9" * 40 + "s"}}), "hang.timeout"),
        (json.dumps({"grace_period": "1e400s"}), "grace_period"),
        ('{"max_restarts": "\udcff"}', VARIABLE),
    ],
)
def test_a_policy_in_the_environment_is_bounded_too(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        policy_of_environ({VARIABLE: text})
    assert len(str(error.value)) < 1_000
    assert policy_of_environ({}) == Policy()
