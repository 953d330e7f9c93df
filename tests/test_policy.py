"""A policy is what was written, or an error that names field, value and what to type."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from megatron_resume.cli import main
from megatron_resume.errors import ConfigError
from megatron_resume.policy import PHASES, Duration, Policy, policy_of, read_policy, template


def test_the_policy_by_default_is_that_of_dlc_jobs() -> None:
    policy = Policy()
    assert policy.max_restarts == 3
    assert {policy.hang.of(phase) for phase in PHASES} == {3_600}


def test_the_template_is_the_policy_by_default() -> None:
    assert policy_of(yaml.safe_load(template()), "template") == Policy()


def test_each_line_of_the_template_can_be_used() -> None:
    lines = [line.replace("# ", "", 1) if line.endswith(": 1h") else line for line in template().splitlines()]
    policy = policy_of(yaml.safe_load("\n".join(lines)), "template")
    assert policy.hang.exit == policy.refill_after.health == 3_600


def test_a_phase_has_a_time_of_its_own() -> None:
    hang = policy_of({"hang": {"timeout": "30m", "rollout": "1h30m"}}, "file").hang
    assert [hang.of("rollout"), hang.of("train"), hang.longest] == [5_400, 1_800, 5_400]


@given(st.integers(1, 10**12))
def test_a_time_is_read_as_it_is_shown(milliseconds: int) -> None:
    seconds = milliseconds / 1_000 if milliseconds < 10**8 else milliseconds // 10**6 + 1
    assert Duration.read(str(Duration(seconds))) == pytest.approx(seconds, abs=1e-3)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"hang": {"timeout": 3600}}, "hang.timeout is 3600: it has no unit; write 90s, 30m, 1h or 1h30m"),
        ({"hang": {"timeout": "1 hour"}}, "hang.timeout is '1 hour': it is no time; write 90s"),
        ({"hang": {"timeout": "0s"}}, "hang.timeout is '0s': it is no time"),
        ({"hang": {"timeout": ""}}, "hang.timeout is '': it is no time"),
        ({"grace_period": "-5s"}, "grace_period is '-5s': it is no time"),
        ({"hang": {"rolout": "1h"}}, "hang.rolout is not known; write rollout"),
        ({"refill_after": {"commit": 1}}, "refill_after.commit is not known; write commits"),
        ({"max_restart": 3}, "max_restart is not known; write max_restarts"),
        ({"max_restarts": "3"}, "max_restarts is '3': Expected `int`, got `str`"),
        ({"max_restarts": True}, "max_restarts is True: Expected `int`, got `bool`"),
        ({"max_restarts": -1}, "max_restarts is -1: Expected `int` >= 0"),
        ({"no_progress_limit": 1}, "no_progress_limit is 1: Expected `int` >= 2"),
        ({"hang": None}, "hang is None: Expected `object`, got `null`"),
        ({"retry": ["a b"]}, "retry names 'a b'; write an exit code such as 137, or an exception such as OSError"),
        ({"fatal": [0]}, "fatal names the exit code 0; exit codes of failures are 1 to 255"),
        ({"retry": [9, "OSError"], "fatal": ["OSError"]}, "retry and fatal both name OSError; leave it in one of them"),
        ({"max_restarts": int("f" * 6_000, 16)}, "max_restarts is a number of 24000 bits: "),
        (["max_restarts"], "it holds ['max_restarts']; it must hold `field: value` lines"),
    ],
)
def test_a_mistake_is_named_with_field_value_and_what_to_type(content: Any, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        policy_of(content, "fault_tolerance.yaml")
    assert str(error.value).startswith(f"fault_tolerance.yaml: {said}")


@pytest.mark.parametrize("text", ["hang: [", "\0", "a: &a [*a]", "[" * sys.getrecursionlimit()])
def test_what_is_no_policy_is_refused_by_its_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "fault_tolerance.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=str(path)):
        read_policy(str(path))


def test_a_file_that_is_missing_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory; `megatron-resume policy init` writes one"):
        read_policy(str(tmp_path / "nothing.yaml"))


def test_an_empty_file_is_the_policy_by_default(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    assert read_policy(str(tmp_path / "empty.yaml")) == Policy()


def test_init_writes_what_check_accepts_and_nothing_over_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "fault_tolerance.yaml"
    assert main(["policy", "init", str(path)]) == 0
    assert main(["policy", "check", str(path)]) == 0
    assert "restarts: 3, given back by an attempt that commits 1 resume point" in capsys.readouterr().out
    path.write_text("max_restarts: 5\n")
    assert main(["policy", "init", str(path)]) == 78
    assert path.read_text() == "max_restarts: 5\n"


def test_check_ends_with_78_for_a_wrong_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "policy.yaml").write_text("max_restarts: many\n")
    assert main(["policy", "check", str(tmp_path / "policy.yaml")]) == 78
    assert "max_restarts is 'many'" in capsys.readouterr().err
