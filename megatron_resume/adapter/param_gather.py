"""Weights as they are trained: gathered before a save, when Megatron leaves that to the next forward pass.

With `--overlap-param-gather` the distributed optimizer updates on each rank its own part of the weights. The other
parts come with the next forward pass, so until then the weights of a rank are partly those of the step before.
Megatron's own loop gathers before it saves; a loop of one's own that calls `save_checkpoint` does not.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ..errors import ConfigError

# Classes whose weights cannot be gathered so: Megatron-FSDP, its adapter and what it was before 0.14, torch's FSDP 1
# and 2, and Megatron's wrapper of that.
SHARDED = {"MegatronFSDP", "FullyShardedDataParallel", "FSDPModule", "TorchFullyShardedDataParallel"}


def check(role: str, model: Any) -> None:
    """Refuse to save `role` if its weights cannot be brought up to date. Any rank.

    The arguments name such a model at the start (`formats.check`), unless a loop of one's own wraps it by itself.

    Raises:
        ConfigError: It names the class.
    """
    for part in _parts(model):
        for module in _wrappers(part):
            found = _sharding(type(module).__mro__)
            if found:
                raise ConfigError(
                    f"{role} is wrapped in {found}, which is not supported: that its weights are saved as they "
                    "train was never seen. Wrap it in Megatron's DistributedDataParallel, or leave out "
                    "--data-checkpoint-path"
                )


def bring_up_to_date(called_with: Mapping[str, Any]) -> None:
    """Gather the weights of each model chunk that waits for its next forward pass. Call on every rank.

    Does what Megatron's `force_param_sync` does (0.16 on), on each version: the hooks of the forward pass stay. It
    does nothing if they are off, since whoever took them off has gathered, as Megatron's own loop.

    Args:
        called_with: the arguments of `save_checkpoint`, by name.
    """
    waiting = [
        chunk for part in _parts(called_with.get("model")) for chunk in _wrappers(part) if _gathers_in_forward(chunk)
    ]
    if not waiting:
        return
    # From 0.19 on: 8 bit weights are made from the optimizer's.
    prepare = getattr(called_with.get("optimizer"), "prepare_model_params_for_param_sync", None)
    if prepare is not None:
        prepare()
    with torch.no_grad():
        for chunk in waiting:
            chunk.start_param_sync(force_sync=True)


@functools.cache
def _sharding(kinds: tuple[type, ...]) -> str:
    """Which of them shards weights in a way of its own; "" where none does."""
    return min(SHARDED & {kind.__name__ for kind in kinds}, default="")


def _parts(model: Any) -> list[Any]:
    if isinstance(model, list):  # as Megatron has it
        return model
    if model is None:
        return []
    return list(model) if isinstance(model, tuple | torch.nn.ModuleList) else [model]


def _wrappers(module: Any) -> Iterator[Any]:
    """A module and those that it wraps: DDP may stand below what a script put around it."""
    while isinstance(module, torch.nn.Module):
        yield module
        module = _inner(module)


def _inner(module: torch.nn.Module) -> Any:
    # Not by getattr alone: for what a module lacks, torch looks everywhere and makes an error, in each save.
    found = module._modules.get("module")
    return getattr(module, "module", None) if found is None and hasattr(type(module), "module") else found


def _gathers_in_forward(chunk: Any) -> bool:
    return bool(vars(chunk).get("remove_forward_pre_hook_handles")) and hasattr(chunk, "start_param_sync")
