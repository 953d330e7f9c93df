"""Which of Megatron's checkpoint formats a resumed run continues from exactly."""

import logging
from typing import Any

from ..errors import ConfigError
from . import ranks

logger = logging.getLogger("megatron_resume")

PROVEN = ("torch_dist", "torch")


def check(args: Any) -> None:
    """Raises ConfigError for what Megatron would save and could not load again."""
    if not _is_distributed_adam(args) or _has_fused_adam():
        return
    if getattr(args, "dist_ckpt_optim_fully_reshardable", False):
        raise ConfigError(
            "--dist-ckpt-optim-fully-reshardable needs Transformer Engine or Apex: without them Megatron cannot load "
            "the optimizer that it saved (KeyError: 'step'). Leave it out"
        )
    if format_of(args) == "torch":
        raise ConfigError(
            "--ckpt-format torch with --use-distributed-optimizer needs Transformer Engine or Apex: without them "
            "Megatron cannot load the optimizer that it saved (KeyError: 'step'). Use --ckpt-format torch_dist"
        )


def warn_of_unproven(role: str, args: Any) -> None:
    """On rank 0, say that nobody has seen a run in this format end as an undisturbed one."""
    if format_of(args) not in PROVEN and ranks.rank() == 0:
        logger.warning(
            "%s is saved with --ckpt-format %s, which is unproven here: a start checks files, iteration and samples, "
            "but that the run continues exactly was seen with %s only",
            role,
            format_of(args),
            " and ".join(PROVEN),
        )


def format_of(args: Any) -> str:
    return str(getattr(args, "ckpt_format", "torch"))


def _is_distributed_adam(args: Any) -> bool:
    return bool(getattr(args, "use_distributed_optimizer", False)) and getattr(args, "optimizer", "adam") == "adam"


def _has_fused_adam() -> bool:
    """Whether Megatron's Adam keeps its step beside the state of the parameters, as its loader expects."""
    from megatron.core.optimizer import distrib_optimizer

    return bool(getattr(distrib_optimizer, "HAVE_APEX_OR_TE", True))
