"""The state dicts that Megatron saves, and by which it asks for what it loads: which tensors are in them."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch

from ..checkpoint.contents import ANY_SHAPE, GROUPS, MODEL, OPTIMIZER, REST, Contents, describe, part_of

logger = logging.getLogger("megatron_resume")


class LookedAt(NamedTuple):
    """What is in a state dict of this rank."""

    contents: Contents
    tensors: dict[str, list[torch.Tensor]]  # by name; a rank may hold several shards of one


def looked_at(look: Callable[[], LookedAt]) -> LookedAt | None:
    """What `look` returns; None if it fails, as for a model that is built in a way that nobody foresaw."""
    try:
        return look()
    except Exception:
        logger.exception("nobody can tell what tensors the model has; they are not compared with those of a checkpoint")
        return None


def of_sharded(state_dict: Mapping[str, Any]) -> LookedAt:
    """What a sharded state dict of this rank names, and the tensors that it holds of it.

    Factories are built, which makes views: what Megatron saves and loads in place of each are its parts.
    """
    contents: Contents = {}
    tensors: dict[str, list[torch.Tensor]] = {}
    for key, value in state_dict.items():
        part = part_of(str(key))
        entries = contents.setdefault(part, {})
        if part == OPTIMIZER:
            entries.update(_groups(value, str(key)))
        for leaf, kind in _sharded(value):
            name = str(leaf.key)
            if kind == "object":
                entries[name] = describe(kind, "", leaf.global_shape)
                continue
            kind = ANY_SHAPE if getattr(leaf, "allow_shape_mismatch", False) else kind
            entries[name] = describe(kind, leaf.dtype, leaf.global_shape)
            if isinstance(leaf.data, torch.Tensor):
                tensors.setdefault(name, []).append(leaf.data)
    return LookedAt(contents, tensors)


def _sharded(value: Any, kind: str = "tensor") -> Iterator[tuple[Any, str]]:
    """The sharded tensors and objects in `value`, each with its kind."""
    from megatron.core.dist_checkpointing.mapping import ShardedObject, ShardedTensor, ShardedTensorFactory

    if isinstance(value, ShardedTensor):
        yield value, kind
    elif isinstance(value, ShardedObject):
        yield value, "object"
    elif isinstance(value, ShardedTensorFactory):
        yield from _sharded(value.build(), "factory")
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _sharded(item, kind)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _sharded(item, kind)


def _groups(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Where in its state dict an optimizer has parameter groups: one of several parts has them one level deeper."""
    for key, item in value.items() if isinstance(value, Mapping) else ():
        if key == "param_groups":
            yield f"{name}/{key}", describe(GROUPS, "", ())
        else:
            yield from _groups(item, f"{name}/{key}")


def of_this_rank(model: Any, optimizer: Any) -> LookedAt:
    """What `--ckpt-format torch` writes of this rank's model into a file of its own, in whose name the names begin.

    Of the optimizer only whether there is one: its state does not exist before it is loaded.
    """
    from megatron.training.checkpointing import get_checkpoint_name, unwrap_model

    file = os.path.basename(os.path.dirname(str(get_checkpoint_name("", 0))))
    entries: dict[str, str] = {}
    tensors: dict[str, list[torch.Tensor]] = {}
    for number, chunk in enumerate(unwrap_model(_as_list(model))):
        for name, tensor in _plain(chunk.state_dict_for_save_checkpoint(), f"{file}/{number}"):
            entries[name] = describe("tensor", tensor.dtype, tensor.shape)
            tensors[name] = [tensor]
    contents = {MODEL: entries, OPTIMIZER: {}, REST: {}}
    if optimizer is not None and not getattr(optimizer, "is_stub_optimizer", False):
        contents[OPTIMIZER] = {f"{file}/{OPTIMIZER}": "object"}
    return LookedAt(contents, tensors)


def _as_list(model: Any) -> list[Any]:
    return list(model) if isinstance(model, list | tuple) else [model]


def _plain(value: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _plain(item, f"{name}/{key}")


def in_use(model: Any, optimizer: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights, buffers and optimizer state that training goes on with, by names for people."""
    for chunk in _as_list(model):
        yield from chunk.named_parameters()
        yield from chunk.named_buffers()
    for each in getattr(optimizer, "chained_optimizers", None) or [optimizer]:
        inner = getattr(each, "optimizer", None)
        for group in getattr(inner, "param_groups", None) or []:
            yield from (("a weight of the optimizer", weight) for weight in group["params"])
        for state in (getattr(inner, "state", None) or {}).values():
            if isinstance(state, Mapping):
                yield from (
                    (f"{name} of the optimizer", value)
                    for name, value in state.items()
                    if isinstance(value, torch.Tensor)
                )
