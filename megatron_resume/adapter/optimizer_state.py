"""Whether what an optimizer saves is all that it will ask for when it is loaded."""

from collections.abc import Mapping
from typing import Any

_RESTORED_AS_IT_IS = ("torch",)  # formats in which a state that is absent is loaded as absent


def problem(optimizer: Any, ckpt_format: str) -> str | None:
    """Why Megatron could not load the optimizer again; None if it can, or there is none.

    torch's Adam has no state until its first step, and with fp16 the first steps may all be skipped. Before it loads,
    Megatron gives each parameter a state, and then asks the checkpoint for that. Every rank skips the same steps, so
    one rank tells for all.
    """
    if optimizer is None or ckpt_format in _RESTORED_AS_IT_IS:
        return None
    if not any(_lacks_its_state(part) for part in getattr(optimizer, "chained_optimizers", [optimizer])):
        return None
    return (
        "the optimizer has made no step yet (each one was skipped, as while the loss scale of fp16 is too high), so "
        "its state is not in the checkpoint, and Megatron could not load it"
    )


def _lacks_its_state(optimizer: Any) -> bool:
    inner = getattr(optimizer, "optimizer", optimizer)
    if inner is None or getattr(optimizer, "is_stub_optimizer", False):
        return False
    state, groups = getattr(inner, "state", None), getattr(inner, "param_groups", ())
    if not isinstance(state, Mapping) or any(state.values()):
        return False
    return any(group["params"] and "betas" in group for group in groups)  # as Adam has them; SGD may have no state
