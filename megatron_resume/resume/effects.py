"""What a changed argument does to a resume, as runs of Megatron 0.19 showed it. Pure.

An argument that nothing here names has an unknown effect: it is shown, since it could be why two runs differ.
"""

import re
from collections.abc import Collection
from enum import Enum

from .overrides import OVERRIDDEN
from .recorded import Arguments


class Exact(Enum):
    """Whether the run goes on as it would have without the change."""

    NO = "no"
    UNKNOWN = "unknown"
    KEPT = "yes, the saved one stays"
    YES = "yes"


# Compiled at their first use: the import of this package is to take no time.
_HARMLESS = (
    r"(adlr_autoresume|async|auto_detect_ckpt_format|check_for|ckpt|dist_ckpt|distributed_timeout|enable_ft_package|eval"
    r"|exit|flight_recorder|ft|inprocess|log|logging|manual_gc|memory_snapshot|non_persistent|nvtx|one_logger"
    r"|override_opt_param_scheduler|profile|pytorch_profiler|record|save|straggler|tensorboard|timing|use_checkpoint"
    r"|use_persistent_ckpt_worker|use_pytorch_profiler)(_|$)"
)
_HARMFUL = (
    r"(clip_grad|data_path|fp4|fp8|hysteresis|loss_scale|make_vocab_size|max_position_embeddings|micro_batch_size|muon"
    r"|padded_vocab_size|rampup_batch_size|rope|rotary|seed|seq_length|sgd|split|tokenizer|train_data_path|vocab_size"
    r"|world_size)(_|$)|.*(dropout|_dtype|parallel_size)$"
)
_OF_THE_OPTIMIZER_STATE = {"adam_beta1", "adam_beta2", "adam_eps"}

# Of the schedule: what the checkpoint holds too, and what it does not.
_SAVED_SCHEDULE = {
    *("lr", "min_lr", "lr_decay_style", "lr_decay_iters", "lr_decay_samples", "lr_warmup_fraction"),
    *("lr_warmup_iters", "lr_warmup_samples", "train_iters", "train_samples"),
}
_SCHEDULE = {
    *_SAVED_SCHEDULE,
    *("global_batch_size", "lr_warmup_init", "lr_wsd_decay_iters", "lr_wsd_decay_samples", "lr_wsd_decay_style"),
    # Saved too; but told to keep the saved ones, Megatron still takes its first step with the new.
    *("weight_decay", "start_weight_decay", "end_weight_decay", "weight_decay_incr_style"),
}
_SCHEDULE_CHOICES = ("override_opt_param_scheduler", "use_checkpoint_opt_param_scheduler")
_PARAMETER_GROUPS = {"lr": "max_lr", "min_lr": "min_lr", "decoupled_lr": "max_lr", "decoupled_min_lr": "min_lr"}

_WEIGHTS = {  # their shapes, and what Megatron itself insists on
    *("add_position_embedding", "ffn_hidden_size", "hidden_size", "kv_channels", "num_attention_heads", "num_layers"),
    *("num_query_groups", "swiglu"),
}
_MORE_WEIGHTS = {  # the value that has weights which the others lack; Megatron ignores what was saved in excess
    "add_bias_linear": True,
    "normalization": "LayerNorm",
    "position_embedding_type": "learned_absolute",
    "untie_embeddings_and_output_weights": True,
}
_OPTIMIZER = {"bf16", "fp16", "optimizer", "use_distributed_optimizer"}
_DIVISION = {"pipeline_model_parallel_size", "tensor_model_parallel_size"}


def is_known(name: str) -> bool:
    """Whether something here reads the value of argument `name`, or names its effect."""
    sets = _OF_THE_OPTIMIZER_STATE | _SCHEDULE | _PARAMETER_GROUPS.keys() | _WEIGHTS | _MORE_WEIGHTS.keys() | _OPTIMIZER
    return name in sets | OVERRIDDEN | _DIVISION or re.match(f"(?:{_HARMLESS}|{_HARMFUL})", name) is not None


def exactness(name: str, now: Arguments) -> Exact:
    """How exactly a run goes on after a change of argument `name`, which Megatron can load with."""
    if name in _OF_THE_OPTIMIZER_STATE:
        return Exact.KEPT
    if name in _SAVED_SCHEDULE and now.get("use_checkpoint_opt_param_scheduler"):
        return Exact.KEPT
    if name in _SCHEDULE | _PARAMETER_GROUPS.keys() | _WEIGHTS | _MORE_WEIGHTS.keys() | _OPTIMIZER:
        return Exact.NO
    if re.match(_HARMFUL, name):
        return Exact.NO
    return Exact.YES if re.match(_HARMLESS, name) else Exact.UNKNOWN


def exactness_of_package(name: str) -> Exact:
    """How exactly a run goes on with another version of a package."""
    return Exact.YES if name == "megatron-resume" else Exact.NO


def needed(name: str, then: Arguments, now: Arguments, matched_by_optimizer: Collection[str]) -> str:
    """What to type so that Megatron can load after a change of argument `name`; empty where it can.

    Args:
        matched_by_optimizer: settings of parameter groups by which Megatron finds their saved state.
    """
    old, new = then.get(name), now.get(name)
    as_before = f"continue with {_typed(name, old)}"
    if _changes_weights(name, new, now) or name in _OPTIMIZER:
        return as_before
    if (name, old, new) == ("ckpt_format", "torch_dist", "torch"):
        return as_before
    if _PARAMETER_GROUPS.get(name) in matched_by_optimizer:
        return f"{as_before}, by which Megatron finds the optimizer's state"
    if name in _DIVISION | {"padded_vocab_size"} and then.get("ckpt_format") == "torch":
        return f"{as_before}; only what was saved with --ckpt-format torch_dist can change it"
    if name in _DIVISION and _is_bound_to_its_division(then):
        return (
            f"{as_before}, by which the distributed optimizer's state is divided; only what was saved with "
            "--dist-ckpt-optim-fully-reshardable can change it"
        )
    changes_schedule = name in _SCHEDULE and _schedule(then) != _schedule(now)
    if changes_schedule and not any(map(now.get, _SCHEDULE_CHOICES)):
        return "add --use-checkpoint-opt_param-scheduler to keep the schedule, or --override-opt_param-scheduler"
    return ""


def _changes_weights(name: str, new: object, now: Arguments) -> bool:
    """Whether Megatron would look for weights that were not saved, or were saved in another shape."""
    if name == "max_position_embeddings":
        return now.get("position_embedding_type") == "learned_absolute"
    return name in _WEIGHTS or (name in _MORE_WEIGHTS and _MORE_WEIGHTS[name] == new)


def _is_bound_to_its_division(saved: Arguments) -> bool:
    return bool(saved.get("use_distributed_optimizer")) and saved.get("dist_ckpt_optim_fully_reshardable") is False


def _typed(name: str, value: object) -> str:
    flag = "--" + name.replace("_", "-")
    if isinstance(value, dict):  # a digest
        return f"the {flag} of the run that saved"
    if value is None:
        return f"no {flag}"
    return f"{name} = {value}" if isinstance(value, bool) else f"{flag} {value}"


def _schedule(arguments: Arguments) -> tuple[object, ...]:
    """What Megatron compares of a schedule with the saved one: lengths in samples, and settings."""
    unit, length = (
        (_number(arguments, "global_batch_size"), "iters") if arguments.get("train_iters") else (1, "samples")
    )
    total = _number(arguments, f"train_{length}") * unit
    decay = _number(arguments, f"lr_decay_{length}") * unit or total
    warmup = _number(arguments, "lr_warmup_fraction") * decay or _number(arguments, f"lr_warmup_{length}") * unit
    settings = ("lr", "min_lr", "lr_decay_style", "start_weight_decay", "end_weight_decay", "weight_decay_incr_style")
    return (total, decay, warmup, *map(arguments.get, settings))


def _number(arguments: Arguments, name: str) -> float:
    value = arguments.get(name)
    return value if isinstance(value, int | float) else 0
