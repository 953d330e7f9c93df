"""Which changes of a configuration are shown, what each does to a resume, and what is needed where it cannot work."""

from typing import Any

import pytest

from megatron_resume.resume.differences import Configuration, Difference, differences
from megatron_resume.resume.effects import Exact

VERSIONS = {"torch": "2.13.0", "megatron-core": "0.19.2"}
SAVED: dict[str, Any] = {
    "num_layers": 2,
    "ffn_hidden_size": 128,
    "hidden_size": 64,
    "kv_channels": 16,
    "num_attention_heads": 4,
    "add_bias_linear": False,
    "normalization": "RMSNorm",
    "untie_embeddings_and_output_weights": True,
    "position_embedding_type": "rope",
    "max_position_embeddings": 48,
    "padded_vocab_size": 256,
    "optimizer": "adam",
    "adam_beta2": 0.999,
    "bf16": False,
    "use_distributed_optimizer": False,
    "dist_ckpt_optim_fully_reshardable": False,
    "ckpt_format": "torch_dist",
    "tensor_model_parallel_size": 1,
    "world_size": 2,
    "data_parallel_size": 2,
    "global_batch_size": 16,
    "train_iters": 6,
    "train_samples": None,
    "lr": 0.01,
    "min_lr": 0.001,
    "lr_decay_style": "cosine",
    "lr_decay_iters": None,
    "lr_warmup_iters": 0,
    "lr_warmup_fraction": None,
    "weight_decay": 0.01,
    "start_weight_decay": 0.01,
    "end_weight_decay": 0.01,
    "weight_decay_incr_style": "constant",
    "override_opt_param_scheduler": False,
    "use_checkpoint_opt_param_scheduler": False,
    "clip_grad": 1.0,
    "kl_target": 6.0,
    "log_interval": 100,
    "save": "/run1/checkpoints/policy",
    "tensorboard_dir": "/run1/tensorboard",
    "load": "/base",
    "finetune": True,
    "consumed_train_samples": 0,
    "rank": 0,
}
LIKE_0_19 = ("max_lr", "min_lr", "wd_mult")
KEEP = {"use_checkpoint_opt_param_scheduler": True}


def compare(
    saved: dict[str, Any] | None = None, versions: dict[str, str] | None = None, **now: Any
) -> dict[str, Difference]:
    """The differences of a start with `now` from a save with `saved`, both on top of SAVED."""
    then = {**SAVED, **(saved or {})}
    found = differences(
        Configuration(then, VERSIONS),
        Configuration({**then, **now}, VERSIONS if versions is None else versions),
        matched_by_optimizer=LIKE_0_19,
    )
    return {one.name: one for one in found}


def test_the_same_command_shows_nothing() -> None:
    assert compare() == {}


def test_what_megatron_or_a_resume_sets_anew_is_not_shown() -> None:
    assert (
        compare(load="/run1/checkpoints/policy", ckpt_step=4, finetune=False, consumed_train_samples=64, rank=1) == {}
    )


def test_our_own_options_are_not_shown() -> None:
    assert compare(load_data_checkpoint_iteration=4, take_over=True) == {}


def test_a_job_that_was_moved_as_a_whole_shows_nothing() -> None:
    assert compare(save="/run2/checkpoints/policy", tensorboard_dir="/run2/tensorboard") == {}
    assert compare(tensorboard_dir="/run2/tensorboard")["tensorboard_dir"].exact is Exact.YES


def test_an_argument_that_only_echoes_another_is_not_shown() -> None:
    assert list(compare(weight_decay=0.1, start_weight_decay=0.1, end_weight_decay=0.1)) == ["weight_decay"]
    assert list(compare(world_size=4, data_parallel_size=4)) == ["world_size"]
    assert list(compare(start_weight_decay=0.1)) == ["start_weight_decay"]


def test_what_megatron_fills_in_later_or_does_not_use_is_no_difference() -> None:
    legacy = {"ckpt_format": "torch", "group_query_attention": False, "num_query_groups": 1}
    assert compare({**legacy, "padded_vocab_size": None}, padded_vocab_size=256, num_query_groups=4) == {}
    assert compare(legacy, padded_vocab_size=512)["padded_vocab_size"].needed
    assert compare(legacy, group_query_attention=True, num_query_groups=4)["num_query_groups"].needed


@pytest.mark.parametrize(
    ("change", "exact"),
    [
        ({"clip_grad": 0.5}, Exact.NO),
        ({"world_size": 4}, Exact.NO),
        ({"tensor_model_parallel_size": 2}, Exact.NO),
        ({"attention_dropout": 0.0}, Exact.NO),
        ({"normalization": "RMSNorm"}, Exact.NO),
        ({"kl_target": 3.0}, Exact.UNKNOWN),
        ({"an_option_of_the_script": 1}, Exact.UNKNOWN),
        ({"adam_beta2": 0.95}, Exact.KEPT),
        ({"log_interval": 1}, Exact.YES),
        ({"async_save": True}, Exact.YES),
    ],
)
def test_a_change_that_can_be_loaded_says_how_exactly_the_run_goes_on(change: dict[str, Any], exact: Exact) -> None:
    (name,) = change
    saved = {"normalization": "LayerNorm", "attention_dropout": 0.1}
    assert compare(saved, **change)[name][3:] == (exact, "")


@pytest.mark.parametrize(
    ("saved", "change", "needed"),
    [
        ({}, {"num_layers": 4}, "continue with --num-layers 2"),
        ({}, {"add_bias_linear": True}, "continue with add_bias_linear = False"),
        ({}, {"normalization": "LayerNorm"}, "continue with --normalization RMSNorm"),
        ({}, {"optimizer": "sgd"}, "continue with --optimizer adam"),
        ({}, {"bf16": True}, "continue with bf16 = False"),
        ({}, {"ckpt_format": "torch"}, "continue with --ckpt-format torch_dist"),
        ({}, {"lr": 0.1}, "continue with --lr 0.01, by which Megatron finds the optimizer's state"),
        ({}, {"lr": 0.1, **KEEP}, "continue with --lr 0.01, by which Megatron finds the optimizer's state"),
        ({}, {"train_iters": 10}, "add --use-checkpoint-opt_param-scheduler to keep the schedule"),
        ({}, {"lr_decay_style": "linear"}, "add --use-checkpoint-opt_param-scheduler to keep the schedule"),
        ({}, {"weight_decay": 0.1, "start_weight_decay": 0.1}, "add --use-checkpoint-opt_param-scheduler"),
        ({"ckpt_format": "torch"}, {"tensor_model_parallel_size": 2}, "saved with --ckpt-format torch_dist can"),
        ({"ckpt_format": "torch"}, {"padded_vocab_size": 384}, "saved with --ckpt-format torch_dist can"),
        ({"use_distributed_optimizer": True}, {"tensor_model_parallel_size": 2}, "by which the distributed optimizer"),
        (
            {"position_embedding_type": "learned_absolute"},
            {"max_position_embeddings": 64},
            "--max-position-embeddings 48",
        ),
    ],
)
def test_a_change_that_cannot_be_loaded_says_what_is_needed(
    saved: dict[str, Any], change: dict[str, Any], needed: str
) -> None:
    name = next(iter(change))
    assert needed in compare(saved, **change)[name].needed


@pytest.mark.parametrize(
    ("saved", "change"),
    [
        ({"normalization": "LayerNorm"}, {"normalization": "RMSNorm"}),
        ({"add_bias_linear": True}, {"add_bias_linear": False}),
        ({}, {"untie_embeddings_and_output_weights": False}),
        ({}, {"padded_vocab_size": 384}),
        ({}, {"max_position_embeddings": 64}),
        ({}, {"tensor_model_parallel_size": 2}),
        ({"ckpt_format": "torch"}, {"ckpt_format": "torch_dist"}),
        ({"use_distributed_optimizer": True}, {"world_size": 4}),
        ({}, {"train_iters": 10, **KEEP}),
        ({}, {"train_iters": 10, "override_opt_param_scheduler": True}),
        ({}, {"train_iters": 12, "global_batch_size": 8}),  # as many samples
        ({"lr_decay_iters": 6}, {"train_iters": 6, "lr_decay_iters": None}),
        ({"train_iters": None, "train_samples": 96}, {"train_iters": 6, "train_samples": None}),
    ],
)
def test_what_megatron_can_load_is_not_refused(saved: dict[str, Any], change: dict[str, Any]) -> None:
    found = compare(saved, **change)
    assert found
    assert [one.needed for one in found.values() if one.needed] == []


def test_a_schedule_that_the_checkpoint_keeps_is_exact_but_its_weight_decay_is_not() -> None:
    found = compare(train_iters=10, weight_decay=0.1, start_weight_decay=0.1, **KEEP)
    assert (found["train_iters"].exact, found["weight_decay"].exact) == (Exact.KEPT, Exact.NO)


def test_a_megatron_whose_optimizer_is_not_found_by_its_learning_rate_may_change_it() -> None:
    now = Configuration({**SAVED, "lr": 0.1, "override_opt_param_scheduler": True}, VERSIONS)
    found = differences(Configuration(SAVED, VERSIONS), now, matched_by_optimizer=("wd_mult", "lr_mult"))
    assert [(one.name, one.needed) for one in found if one.exact is Exact.NO] == [("lr", "")]


def test_versions_are_compared_too() -> None:
    found = compare(versions={"torch": "2.14.0", "megatron-core": "0.19.2", "transformer-engine": "2.1"})
    assert found["torch"] == Difference("torch", "2.13.0", "2.14.0", Exact.NO)
    assert found["transformer-engine"].then == "-"


def test_options_that_only_another_megatron_has_are_not_shown() -> None:
    other = {**VERSIONS, "megatron-core": "0.20.0"}
    assert list(compare(versions=other, new_in_this_megatron=1)) == ["megatron-core"]
    assert list(compare(new_in_the_script=1)) == ["new_in_the_script"]


def test_what_cannot_work_comes_first_and_what_is_harmless_last() -> None:
    found = compare(log_interval=1, kl_target=3.0, clip_grad=0.5, adam_beta2=0.9, num_layers=4)
    assert list(found) == ["num_layers", "clip_grad", "kl_target", "adam_beta2", "log_interval"]


def test_where_nothing_was_recorded_nothing_is_compared() -> None:
    assert differences(Configuration({}, {}), Configuration(SAVED, VERSIONS)) == ()
