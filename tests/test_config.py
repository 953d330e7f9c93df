"""ResumeConfig, its flags, and which source wins."""

import argparse
import logging
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from megatron_resume.config import KEYS, ResumeConfig, _warn_once, add_flags, resolve
from megatron_resume.errors import ConfigError
from megatron_resume.sources import variable

WRONG = {
    "data_checkpoint_path": "s3://bucket/run",
    "enable_resume_training": "on",
    "load_data_checkpoint_iteration": "0",
    "load_data_checkpoint_attempt": "-1",
    "start_over": "maybe",
    "take_over": "2",
    "resume_lease_time": "1h",
    "resume_read_timeout": "-1",
    "resume_digests": "sometimes",
    "max_data_ckpt_nums": "many",
    "resume_prune_models": "all",
    "max_uncommitted_saves": "0",
    "accept_inexact_data": "perhaps",
    "resume_role": "teacher",
    "on_dataset_change": "ignore",
    "trained_roles": "policy,reward",
}


def parse(*argv: str) -> dict[str, object]:
    return vars(add_flags(argparse.ArgumentParser(allow_abbrev=False)).parse_args(argv))


def yaml_file(tmp_path: Path, *lines: str) -> str:
    path = tmp_path / "rlhf.yaml"
    path.write_text("\n".join(["runtime:", *("  " + line for line in lines)]) + "\n")
    return str(path)


def test_nothing_given_is_the_default_configuration() -> None:
    assert resolve({}, {}) == ResumeConfig()


def test_the_defaults_write_nothing_and_name_no_role() -> None:
    config = ResumeConfig()
    assert config.data_checkpoint_path is None
    assert config.enable_resume_training
    assert config.trained_roles == ()


@pytest.mark.parametrize("flag", ["--resume-role", "--trained-roles"])
def test_one_flag_names_the_role_of_a_process_with_one_model(flag: str) -> None:
    config = resolve(parse(flag, "value"), {})
    assert (config.resume_role, config.trained_roles) == ("value", ("value",))


def test_two_trained_roles_are_those_of_no_process_in_particular() -> None:
    assert resolve(parse("--trained-roles", "policy,value"), {}).resume_role is None


def test_a_flag_that_was_not_given_is_none() -> None:
    assert set(parse().values()) == {None}


def test_every_key_has_a_flag_and_a_variable_in_the_help() -> None:
    text = add_flags(argparse.ArgumentParser()).format_help()
    for key in KEYS:
        assert "--" + key.replace("_", "-") in text
        assert variable(key) in text


def test_the_flags_are_added_once_however_often_a_parser_is_built_on() -> None:
    parser = add_flags(add_flags(argparse.ArgumentParser()))
    assert parser.format_usage().count("--resume-role") == 1


def test_a_script_that_defines_our_flag_itself_is_told_to_remove_it() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--max-data-ckpt-nums")
    with pytest.raises(ConfigError, match="defines --max-data-ckpt-nums itself; remove it"):
        add_flags(parser)


def test_flags_become_the_configuration() -> None:
    config = resolve(
        parse(
            *("--data-checkpoint-path", "/shared/data", "--no-enable-resume-training"),
            *("--load-data-checkpoint-iteration", "40", "--max-data-ckpt-nums", "3"),
            *("--resume-role", "ppo_policy", "--trained-roles", "actor, critic"),
        ),
        {},
    )
    assert config == ResumeConfig(
        data_checkpoint_path="/shared/data",
        enable_resume_training=False,
        load_data_checkpoint_iteration=40,
        max_data_ckpt_nums=3,
        resume_role="policy",
        trained_roles=("policy", "value"),
    )


def test_a_flag_wins_over_a_variable() -> None:
    environ = {"MEGATRON_RESUME_MAX_DATA_CKPT_NUMS": "5"}
    assert resolve(parse("--max-data-ckpt-nums", "3"), environ).max_data_ckpt_nums == 3


def test_a_flag_switches_back_on_what_a_variable_switched_off() -> None:
    environ = {"MEGATRON_RESUME_ENABLE_RESUME_TRAINING": "false"}
    assert resolve(parse("--enable-resume-training"), environ).enable_resume_training


def test_a_variable_wins_over_yaml(tmp_path: Path) -> None:
    flags = {"resume_config": yaml_file(tmp_path, "max_data_ckpt_nums: 7")}
    assert resolve(flags, {"MEGATRON_RESUME_MAX_DATA_CKPT_NUMS": "5"}).max_data_ckpt_nums == 5


def test_yaml_wins_over_the_default(tmp_path: Path) -> None:
    flags = {"resume_config": yaml_file(tmp_path, "enable_resume_training: False")}
    assert not resolve(flags, {}).enable_resume_training


def test_each_key_comes_from_the_best_source_that_names_it(tmp_path: Path) -> None:
    path = yaml_file(tmp_path, "data_checkpoint_path: /yaml", "max_data_ckpt_nums: 7", "resume_role: reward")
    environ = {"MEGATRON_RESUME_MAX_DATA_CKPT_NUMS": "5", "MEGATRON_RESUME_CONFIG": path}
    config = resolve(parse("--resume-role", "policy"), environ)
    assert (config.data_checkpoint_path, config.max_data_ckpt_nums, config.resume_role) == (
        "/yaml",
        5,
        "policy",
    )


def test_none_in_a_variable_undoes_what_yaml_says(tmp_path: Path) -> None:
    flags = {"resume_config": yaml_file(tmp_path, "load_data_checkpoint_iteration: 20")}
    environ = {"MEGATRON_RESUME_LOAD_DATA_CHECKPOINT_ITERATION": "none"}
    assert resolve(flags, environ).load_data_checkpoint_iteration is None


def test_an_empty_variable_says_nothing(tmp_path: Path) -> None:
    flags = {"resume_config": yaml_file(tmp_path, "max_data_ckpt_nums: 7")}
    assert resolve(flags, {"MEGATRON_RESUME_MAX_DATA_CKPT_NUMS": ""}).max_data_ckpt_nums == 7


def test_an_empty_flag_is_refused_because_a_shell_variable_was_probably_unset() -> None:
    with pytest.raises(ConfigError, match="--data-checkpoint-path is empty"):
        resolve(parse("--data-checkpoint-path", ""), {})


@pytest.mark.parametrize("text", ["true", "True", "1", "yes", "YES"])
def test_words_for_true(text: str) -> None:
    assert resolve({}, {"MEGATRON_RESUME_ENABLE_RESUME_TRAINING": text}).enable_resume_training is True


@pytest.mark.parametrize("text", ["false", "False", "0", "no", "No"])
def test_words_for_false(text: str) -> None:
    assert resolve({}, {"MEGATRON_RESUME_ENABLE_RESUME_TRAINING": text}).enable_resume_training is False


@pytest.mark.parametrize("key", KEYS)
def test_a_wrong_value_in_a_variable_names_the_variable_the_value_and_what_to_type(key: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve({}, {variable(key): WRONG[key]})
    for part in (f"{variable(key)} is '{WRONG[key]}'", f"type for example `{variable(key)}="):
        assert part in str(error.value)


@pytest.mark.parametrize("key", KEYS)
def test_a_wrong_value_in_yaml_names_the_file_the_key_the_value_and_what_to_type(key: str, tmp_path: Path) -> None:
    path = yaml_file(tmp_path, f"{key}: {WRONG[key]!r}")
    with pytest.raises(ConfigError) as error:
        resolve({"resume_config": path}, {})
    for part in (f"{path}: runtime.{key} is '{WRONG[key]}'", f"type for example `{key}: "):
        assert part in str(error.value)


@pytest.mark.parametrize("key", [key for key in KEYS if not isinstance(getattr(ResumeConfig(), key), bool)])
def test_a_wrong_flag_names_the_flag_the_value_and_what_to_type(key: str) -> None:
    flag = "--" + key.replace("_", "-")
    with pytest.raises(ConfigError) as error:
        resolve({key: WRONG[key]}, {})
    for part in (f"{flag} is '{WRONG[key]}'", f"type for example `{flag} "):
        assert part in str(error.value)


@pytest.mark.parametrize("key", KEYS)
def test_a_record_built_by_hand_is_checked_too(key: str) -> None:
    value: object = ("policy", "reward") if key == "trained_roles" else WRONG[key]
    with pytest.raises(ConfigError, match=f"{key} is "):
        ResumeConfig(**{key: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "line",
    [
        "max_data_ckpt_nums: true",
        "max_data_ckpt_nums: 2.5",
        "max_data_ckpt_nums: [3]",
        "enable_resume_training: 2",
    ],
)
def test_a_value_of_another_type_is_not_bent_into_shape(line: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rlhf.yaml: runtime"):
        resolve({"resume_config": yaml_file(tmp_path, line)}, {})


@pytest.mark.parametrize("scheme", ["s3", "gs", "oss", "hdfs", "file"])
def test_an_object_store_is_refused_by_name(scheme: str) -> None:
    with pytest.raises(ConfigError, match=f"{scheme} URL; it must be a POSIX folder shared by all nodes"):
        resolve({"data_checkpoint_path": f"{scheme}://bucket/run"}, {})


@pytest.mark.parametrize("path", ["~/run", "$HOME/run", "a\0b", "   ", "a\udcffb"])
def test_a_path_that_would_make_an_odd_folder_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="data_checkpoint_path"):
        ResumeConfig(data_checkpoint_path=path)


def test_chatlearns_one_checkpoint_becomes_two_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    _warn_once.cache_clear()
    with caplog.at_level(logging.WARNING, "megatron_resume.config"):
        configs = [resolve({"max_data_ckpt_nums": 1}, {}) for _ in range(2)]
    assert [config.max_data_ckpt_nums for config in configs] == [2, 2]
    text = "--max-data-ckpt-nums is 1; 2 resume points are kept, so that one outlives a failed save"
    assert [record.getMessage() for record in caplog.records].count(text) == 1


def test_models_to_remove_without_a_number_of_points_to_keep_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_data_ckpt_nums is not set, so nothing is ever removed; set it to 2"):
        resolve({"resume_prune_models": True}, {})


def test_only_rank_0_warns(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "megatron_resume.config"):
        resolve({}, {"MEGATRON_RESUME_MAX_DATA_CKPT_NUMS": "1", "RANK": "5"})
    assert not caplog.records


def test_a_frozen_role_may_be_the_role_of_a_process() -> None:
    assert resolve({"resume_role": "ref"}, {}).resume_role == "reference"


def test_a_role_that_trains_but_does_not_commit_is_refused() -> None:
    with pytest.raises(ConfigError, match="add value to trained_roles"):
        ResumeConfig(resume_role="value", trained_roles=("policy",))


def test_the_record_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        ResumeConfig().max_data_ckpt_nums = 5  # type: ignore[misc]


def test_the_record_survives_json() -> None:
    config = ResumeConfig(data_checkpoint_path="/shared/data", trained_roles=("policy",))
    assert msgspec.json.decode(msgspec.json.encode(config), type=ResumeConfig) == config


def test_configuration_from_flags_imports_neither_torch_nor_yaml_nor_numpy() -> None:
    program = (
        "import sys; from megatron_resume.config import resolve; resolve({'max_data_ckpt_nums': 3}, {});"
        "print(sorted({'torch', 'yaml', 'numpy', 'rich', 'typer'} & set(sys.modules)))"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MEGATRON_RESUME_")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environ, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("environ", [{"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}, {"LC_ALL": "POSIX", "LANG": ""}])
def test_a_utf8_path_under_an_ascii_locale_is_refused_with_what_to_set(tmp_path: Path, environ: dict[str, str]) -> None:
    program = """
import sys
from megatron_resume.config import resolve
from megatron_resume.errors import ConfigError
try:
    print(resolve({"data_checkpoint_path": sys.argv[1]}, {}).data_checkpoint_path == sys.argv[1])
except ConfigError as error:
    print(error)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "M\u00fcnchen")]
    environ = {**os.environ, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", **environ}
    refused = subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout
    assert "by its locale this process reads names as ascii" in refused
    assert "set PYTHONUTF8=1" in refused
    told = subprocess.run(command, env={**environ, "PYTHONUTF8": "1"}, capture_output=True, text=True, check=True)
    assert told.stdout == "True\n"
