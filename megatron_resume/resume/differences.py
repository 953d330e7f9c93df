"""What changed in a role's configuration since its resume point. Pure."""

import os
from collections.abc import Collection
from typing import NamedTuple

from ..config import KEYS
from .effects import Exact, exactness, exactness_of_package, needed
from .overrides import OVERRIDDEN
from .recorded import Arguments
from .sealed import is_open, moved_along

NOT_RECORDED = "(value not recorded)"
CHANGED = "changed (value not recorded)"


class Configuration(NamedTuple):
    """What a role was started with."""

    arguments: Arguments  # Megatron's, and the script's own
    versions: dict[str, str]


class Difference(NamedTuple):
    """One argument or package that changed; `needed` says what to type where Megatron cannot continue so.

    `then` and `now` are for people: values that no receipt would hold are not shown either.
    """

    name: str
    then: object
    now: object
    exact: Exact
    needed: str = ""


ABSENT = "-"

# Counted or set anew by Megatron or by us, or always the echo of another argument.
_UNSEEN = OVERRIDDEN | {
    *KEYS,
    *("resume_config", "rank", "local_rank", "iteration", "curr_iteration", "consumed_train_samples"),
    *("consumed_valid_samples", "skipped_train_samples", "num_floating_point_operations_so_far"),
    *("save_retain_interval", "do_train", "do_valid", "do_test", "data_parallel_size", "inprocess_active_world_size"),
    *("use_dist_ckpt", "encoder_num_layers", "encoder_seq_length", "transformer_pipeline_model_parallel_size"),
    "params_dtype",
}
_FOLLOWS: dict[str, tuple[str, ...]] = {  # where not given, Megatron derives it from these
    "accumulate_allreduce_grads_in_fp32": ("bf16",),
    "check_for_nan_in_loss_and_grad": ("fp16",),
    "end_weight_decay": ("weight_decay",),
    "eval_global_batch_size": ("global_batch_size",),
    "eval_micro_batch_size": ("micro_batch_size",),
    "expert_tensor_parallel_num_weight_shards": ("tensor_model_parallel_size",),
    "expert_tensor_parallel_size": ("tensor_model_parallel_size",),
    "group_query_attention": ("num_query_groups",),
    "kv_channels": ("hidden_size", "num_attention_heads"),
    "start_weight_decay": ("weight_decay",),
    "tensor_parallel_num_weight_shards": ("tensor_model_parallel_size",),
}


def differences(
    then: Configuration, now: Configuration, *, matched_by_optimizer: Collection[str] = ()
) -> tuple[Difference, ...]:
    """What `now` has otherwise than `then`: first what cannot work, then by how exactly the run goes on.

    Args:
        matched_by_optimizer: settings of parameter groups by which Megatron finds their saved state.
    """
    if not then.arguments:
        return ()  # a role that is new to us; nothing was recorded
    changed = _changed(then, now)
    found = [
        Difference(
            name,
            *_told(name, *values),
            exactness(name, now.arguments),
            needed(name, then.arguments, now.arguments, matched_by_optimizer),
        )
        for name, values in changed.items()
    ]
    found += _of_versions(then.versions, now.versions)
    return tuple(sorted(found, key=lambda one: (not one.needed, list(Exact).index(one.exact), one.name)))


def _changed(then: Configuration, now: Configuration) -> dict[str, tuple[object, object]]:
    names = (then.arguments.keys() | now.arguments.keys()) - _UNSEEN
    if then.versions.get("megatron-core") != now.versions.get("megatron-core"):
        names &= then.arguments.keys() & now.arguments.keys()  # what one of them lacks is a default of the other
    saves = then.arguments.get("save"), now.arguments.get("save")
    changed = {}
    for name in names:
        values = then.arguments.get(name, ABSENT), now.arguments.get(name, ABSENT)
        has_moved = moved_along(*values) or _moved_along(values, saves)
        if values[0] != values[1] and not has_moved and _counts(name, values, then, now):
            changed[name] = values
    return {name: changed[name] for name in changed if not changed.keys() & set(_FOLLOWS.get(name, ()))}


def _told(name: str, then: object, now: object) -> tuple[object, object]:
    told = tuple(value if value == ABSENT or is_open(name, value) else NOT_RECORDED for value in (then, now))
    return (CHANGED, "") if told == (NOT_RECORDED, NOT_RECORDED) else (told[0], told[1])


def _counts(name: str, values: tuple[object, object], then: Configuration, now: Configuration) -> bool:
    """Whether both values are in use: --use-checkpoint-args brings what Megatron filled in after the first start."""
    if name == "padded_vocab_size":
        return None not in values
    if name == "num_query_groups":
        return any(one.arguments.get("group_query_attention", True) for one in (then, now))
    return True


def _moved_along(paths: tuple[object, object], saves: tuple[object, object]) -> bool:
    """Whether both paths look the same from the role's save folder: the job was moved as a whole."""
    seen = []
    for path, save in zip(paths, saves, strict=True):
        if not (isinstance(path, str) and isinstance(save, str) and os.path.isabs(path) and os.path.isabs(save)):
            return False
        seen.append(os.path.relpath(path, save))
    return seen[0] == seen[1]


def _of_versions(then: dict[str, str], now: dict[str, str]) -> list[Difference]:
    return [
        Difference(name, then.get(name, ABSENT), now.get(name, ABSENT), exactness_of_package(name))
        for name in {**then, **now}
        if then.get(name) != now.get(name)
    ]
