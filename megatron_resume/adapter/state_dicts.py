"""The state dicts that Megatron saves, and by which it asks for what it loads: which tensors are in them."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from ..checkpoint.contents import ANY_SHAPE, GROUPS, MODEL, OPTIMIZER, Contents, describe, part_of

logger = logging.getLogger("megatron_resume")


class Entry(NamedTuple):
    """One name in a state dict, as it stands there: a save has no time to spell it out."""

    part: str
    name: str
    kind: str
    dtype: object
    shape: Sequence[int]


class LookedAt(NamedTuple):
    """What is in a state dict of this rank."""

    entries: list[Entry]
    tensors: list[tuple[str, torch.Tensor]]  # by name; a rank may hold several shards of one


def spelled_out(entries: Iterable[Entry]) -> Contents:
    """`entries` as receipts have them."""
    contents: Contents = {}
    for part, name, kind, dtype, shape in entries:
        contents.setdefault(part, {})[name] = describe(kind, dtype, shape)
    return contents


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
    look = _Look([], [])
    for key, value in state_dict.items():
        look.at(value, part_of(str(key)), str(key))
    return LookedAt(look.entries, look.tensors)


class _Look:
    """Goes through a sharded state dict."""

    def __init__(self, entries: list[Entry], tensors: list[tuple[str, torch.Tensor]]) -> None:
        from megatron.core.dist_checkpointing.mapping import ShardedObject, ShardedTensor, ShardedTensorFactory

        self.entries, self.tensors = entries, tensors
        self._tensor, self._object, self._factory = ShardedTensor, ShardedObject, ShardedTensorFactory

    def at(self, value: Any, part: str, place: str, kind: str = "tensor") -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                if part == OPTIMIZER and key == "param_groups":  # one of several optimizers has them a level deeper
                    self.entries.append(Entry(part, f"{place}/{key}", GROUPS, "", ()))
                self.at(item, part, f"{place}/{key}" if part == OPTIMIZER else place, kind)
        elif isinstance(value, list | tuple):
            for item in value:
                self.at(item, part, place, kind)
        elif isinstance(value, self._tensor):
            kind = ANY_SHAPE if getattr(value, "allow_shape_mismatch", False) else kind
            self.entries.append(Entry(part, value.key, kind, value.dtype, value.global_shape))
            if isinstance(value.data, torch.Tensor):
                self.tensors.append((value.key, value.data))
        elif isinstance(value, self._factory):
            self.at(value.build(), part, place, "factory")
        elif isinstance(value, self._object):
            self.entries.append(Entry(part, value.key, "object", "", value.global_shape))


def identity(model: Any, optimizer: Any) -> object:
    """Equal for two saves of the same objects with as many trained weights; cheap."""
    parts = getattr(optimizer, "chained_optimizers", None) or [optimizer]
    groups = [
        group for part in parts for group in getattr(getattr(part, "optimizer", None), "param_groups", None) or []
    ]
    num_weights = tuple(len(group["params"]) for group in groups)
    return tuple(map(id, _as_list(model))), id(optimizer), num_weights


def of_this_rank(model: Any, optimizer: Any) -> LookedAt:
    """What `--ckpt-format torch` writes of this rank's model into a file of its own, in whose name the names begin.

    Of the optimizer only whether there is one: its state does not exist before it is loaded.
    """
    from megatron.training.checkpointing import get_checkpoint_name, unwrap_model

    file = os.path.basename(os.path.dirname(str(get_checkpoint_name("", 0))))
    tensors = [
        named
        for number, chunk in enumerate(unwrap_model(_as_list(model)))
        for named in _plain(chunk.state_dict_for_save_checkpoint(), f"{file}/{number}")
    ]
    entries = [Entry(MODEL, name, "tensor", tensor.dtype, tensor.shape) for name, tensor in tensors]
    if optimizer is not None and not getattr(optimizer, "is_stub_optimizer", False):
        entries.append(Entry(OPTIMIZER, f"{file}/{OPTIMIZER}", "object", "", ()))
    return LookedAt(entries, tensors)


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
