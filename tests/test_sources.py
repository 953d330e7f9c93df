"""Environment variables and ChatLearn's YAML, and how each of their mistakes is named."""

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_resume.config import KEYS
from megatron_resume.errors import ConfigError
from megatron_resume.sources import from_environ, from_yaml

CHATLEARN_KEYS = (
    "num_episode sample_per_episode num_training_epoch max_iteration_per_sample "
    "generation_batch_size train_micro_batch_size train_global_batch_size save_episode_interval "
    "log_interval data_path data_ratio colocation eval_episode_interval stream_data_loader_type "
    "debug nsys profiler_dir coalesced_buffer_mb concurrent_comm param_sync_comm_type "
    "param_sync_max_workers max_relay_episode relay_episode_offset training_shuffle_mode "
    "consumed_samples concurrent_setup bucket_size_mb_in_memory_manager exp_name output_dir "
    "cpu_schedule_strategy validate_param_sync enable_eval_before_training "
    "free_sync_collective_group eval_data_path training_data_num_limit eval_data_num_limit "
    "save_interval load_iteration "
)


def values(path: Path | str, environ: dict[str, str] | None = None) -> dict[str, object]:
    return {key: given.value for key, given in from_yaml(str(path), KEYS, environ or {}).items()}


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "rlhf.yaml"
    path.write_text(text)
    return path


def test_other_variables_of_ours_are_no_configuration() -> None:
    environ = {f"MEGATRON_RESUME_{name}": "x" for name in ("CRASH", "NO_WATCH", "LAUNCH_ID", "CONFIG")}
    assert from_environ(KEYS, environ) == {}


def test_an_unknown_variable_names_the_nearest_known_one() -> None:
    with pytest.raises(
        ConfigError, match="MEGATRON_RESUME_MAX_DATA_CKPT_NUM .*write MEGATRON_RESUME_MAX_DATA_CKPT_NUMS"
    ):
        from_environ(KEYS, {"MEGATRON_RESUME_MAX_DATA_CKPT_NUM": "3"})


def test_a_placeholder_takes_the_value_of_the_variable(tmp_path: Path) -> None:
    path = written(tmp_path, "runtime:\n  data_checkpoint_path: ${ckpt:/default}\n")
    assert values(path, {"ckpt": "/shared/run"}) == {"data_checkpoint_path": "/shared/run"}


def test_a_placeholder_without_its_variable_takes_the_default(tmp_path: Path) -> None:
    path = written(tmp_path, "runtime:\n  max_data_ckpt_nums: ${keep:3}\n")
    assert values(path) == {"max_data_ckpt_nums": "3"}


def test_an_empty_default_means_not_given(tmp_path: Path) -> None:
    assert values(written(tmp_path, "runtime:\n  data_checkpoint_path: ${ckpt:}\n")) == {}


def test_a_default_may_hold_a_colon(tmp_path: Path) -> None:
    path = written(tmp_path, "runtime:\n  data_checkpoint_path: ${ckpt:s3://bucket}\n")
    assert values(path) == {"data_checkpoint_path": "s3://bucket"}


def test_a_placeholder_may_be_part_of_a_value(tmp_path: Path) -> None:
    path = written(tmp_path, "runtime:\n  data_checkpoint_path: ${root:/shared}/${run}/data\n")
    assert values(path, {"run": "7"}) == {"data_checkpoint_path": "/shared/7/data"}


def test_a_missing_variable_without_default_names_file_key_and_what_to_type(tmp_path: Path) -> None:
    path = written(tmp_path, "runtime:\n  data_checkpoint_path: ${ckpt}\n")
    with pytest.raises(ConfigError) as error:
        values(path)
    for part in (f"{path}: runtime.data_checkpoint_path", "`export ckpt=...`", "${ckpt:default}"):
        assert part in str(error.value)


def test_a_missing_variable_of_a_key_that_a_flag_gives_does_not_matter(tmp_path: Path) -> None:
    path = written(tmp_path, "runtime:\n  data_checkpoint_path: ${ckpt}\n")
    assert from_yaml(str(path), KEYS, {}, skip=["data_checkpoint_path"]) == {}


def test_placeholders_of_chatlearns_own_keys_are_not_filled_in(tmp_path: Path) -> None:
    assert values(written(tmp_path, "runtime:\n  data_path: ${data_path}\n")) == {}


@pytest.mark.parametrize("key", CHATLEARN_KEYS.split())
def test_chatlearns_own_keys_are_left_alone(key: str, tmp_path: Path) -> None:
    assert values(written(tmp_path, f"runtime:\n  {key}: 1\n  max_data_ckpt_nums: 3\n")) == {"max_data_ckpt_nums": 3}


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("max_data_checkpoint_nums", "max_data_ckpt_nums"),
        ("max_data_ckpt_num", "max_data_ckpt_nums"),
        ("data_ckpt_path", "data_checkpoint_path"),
        ("load_data_ckpt_iteration", "load_data_checkpoint_iteration"),
        ("enable_resume", "enable_resume_training"),
        ("resume_training", "enable_resume_training"),
        ("trained_role", "trained_roles"),
    ],
)
def test_a_misspelt_key_of_ours_names_the_right_one(wrong: str, right: str, tmp_path: Path) -> None:
    path = written(tmp_path, f"runtime:\n  {wrong}: 1\n")
    with pytest.raises(ConfigError, match=rf"runtime\.{wrong} \(= 1\) is not known; write {right}"):
        values(path)


def test_an_unknown_resume_key_is_an_error_however_far_from_ours(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="resume_quietly_please"):
        values(written(tmp_path, "runtime:\n  resume_quietly_please: 1\n"))


def test_a_key_that_is_no_text_is_left_alone(tmp_path: Path) -> None:
    assert values(written(tmp_path, "runtime:\n  1: one\n  2020-01-01: two\n")) == {}


def test_a_file_without_runtime_names_the_sections_it_has(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no section `runtime:` \(found: \['models'\]\)"):
        values(written(tmp_path, "models:\n  policy: 1\n"))


def test_an_empty_runtime_section_says_nothing(tmp_path: Path) -> None:
    assert values(written(tmp_path, "runtime:\n")) == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a\n- b\n",
        "runtime: 3\n",
        "runtime: [",
        "runtime: !!python/object:os.system {}\n",
        "when: 2024-99-99\n",
    ],
)
def test_a_file_that_is_no_configuration_is_refused_by_name(text: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match="rlhf.yaml"):
        values(path)


def test_a_file_that_is_nested_too_deeply_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nested too deeply"):
        depth = sys.getrecursionlimit() // 2  # each takes two calls, and the test takes some
        values(written(tmp_path, "runtime: " + "[" * depth + "]" * depth))


def test_a_file_that_is_absent_or_a_folder_is_refused_by_name(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.yaml"):
        with pytest.raises(ConfigError, match="is no file; --resume-config needs the path"):
            values(path)


def test_a_file_that_is_not_text_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "rlhf.yaml"
    path.write_bytes(b"runtime:\n  a: \xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read as YAML"):
        values(path)


def test_a_value_that_unfolds_to_gigabytes_is_named_in_one_line(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    path = written(tmp_path, "\n".join([*lines, "runtime:", "  resume_me: *a11", ""]))
    with pytest.raises(ConfigError) as error:
        values(path)
    assert len(str(error.value)) < 1000


@given(st.binary(max_size=200))
def test_any_bytes_end_in_values_or_in_a_named_error(content: bytes) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        file.write(content)
        file.flush()
        try:
            values(file.name)
        except ConfigError as error:
            assert file.name in str(error)
