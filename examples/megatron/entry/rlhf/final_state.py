"""Digests of everything a run ends with, so that two runs can be compared to the bit."""

import argparse
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from .roles import FROZEN, RoleModel, build_and_load


def write_final_state(path: str, base: argparse.Namespace, models: dict[str, RoleModel]) -> None:
    """Write the digests of this rank's part of each role. Every rank calls this, after training.

    {role: {"weights": {name: sha256}, "optimizer": {...}, "scheduler": {...}}} for the trained roles; a
    frozen one has "weights" as they are in memory and "checkpoint" as its folder gives them now.
    """
    state = {role: _role_state(built) for role, built in models.items()}
    for role in FROZEN:
        state[role]["checkpoint"] = _weights(build_and_load(base, role))
    rank = torch.distributed.get_rank()
    file = Path(f"{path}.rank{rank}" if rank else path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(state, indent=1, sort_keys=True) + "\n")


def _role_state(built: RoleModel) -> dict[str, dict[str, str]]:
    state = {"weights": _weights(built)}
    if built.optimizer is not None:
        state["optimizer"] = digests(_torch_states(built.optimizer))
        state["scheduler"] = digests(built.scheduler.state_dict())
    return state


def _weights(built: RoleModel) -> dict[str, str]:
    return digests({name: value.detach() for name, value in built.model[0].named_parameters()})


def _torch_states(optimizer: Any) -> list[Any]:
    """The states of torch's optimizers below Megatron's wrappers: on this rank, as they are in memory."""
    chained = getattr(optimizer, "chained_optimizers", [optimizer])
    return [inner.optimizer.state_dict() for inner in chained]


def digests(tree: Any) -> dict[str, str]:
    """The digest of each leaf of nested dicts and lists, by its path."""
    return {path: _digest(leaf) for path, leaf in _leaves(tree, "")}


def _leaves(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, f"{path}/{key}" if path else str(key))
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            yield from _leaves(value, f"{path}/{index}" if path else str(index))
    else:
        yield path, tree


def _digest(leaf: Any) -> str:
    if not isinstance(leaf, torch.Tensor):
        return hashlib.sha256(f"{type(leaf).__name__} {leaf!r}".encode()).hexdigest()
    header = f"{leaf.dtype} {tuple(leaf.shape)} ".encode()
    # As bytes, because numpy does not know bfloat16.
    content = leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(header + content).hexdigest()
