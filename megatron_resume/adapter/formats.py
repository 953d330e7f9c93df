"""Which of Megatron's checkpoint formats, and kinds of data parallelism, a resumed run continues from exactly."""

from typing import Any

from ..errors import ConfigError

PROVEN = ("torch_dist", "torch")
SHARDED = {  # argument -> its flag; the validation of arguments sets the last one beside the one before
    "use_torch_fsdp2": "--use-torch-fsdp2",
    "use_megatron_fsdp": "--use-megatron-fsdp",
    "use_custom_fsdp": "--use-custom-fsdp",  # its name before 0.14
}


def check(args: Any) -> None:
    """Refuse what Megatron could not load again, and what no run was resumed from and compared.

    Raises:
        ConfigError: It names the option, and what to type.
    """
    _check_sharding(args)
    if format_of(args) not in PROVEN:
        raise ConfigError(
            f"--ckpt-format {format_of(args)} is not supported: that a run resumes exactly was seen with "
            f"{' and '.join(PROVEN)} only. Use --ckpt-format torch_dist, or leave out --data-checkpoint-path"
        )
    if _is_sgd_in_shards(args):
        raise ConfigError(
            "--optimizer sgd with --ckpt-format torch_dist is not supported: Megatron cannot load the optimizer that "
            "it saved ('NoneType' object is not callable). Use --ckpt-format torch"
        )
    is_reshardable, is_plain = getattr(args, "dist_ckpt_optim_fully_reshardable", False), format_of(args) == "torch"
    if not (is_reshardable or is_plain) or not _is_distributed_adam(args) or _has_fused_adam():
        return
    if is_reshardable:
        raise ConfigError(
            "--dist-ckpt-optim-fully-reshardable needs Transformer Engine or Apex: without them Megatron cannot load "
            "the optimizer that it saved (KeyError: 'step'). Leave it out"
        )
    raise ConfigError(
        "--ckpt-format torch with --use-distributed-optimizer needs Transformer Engine or Apex: without them "
        "Megatron cannot load the optimizer that it saved (KeyError: 'step'). Use --ckpt-format torch_dist"
    )


def _check_sharding(args: Any) -> None:
    for name, flag in SHARDED.items():
        if getattr(args, name, False):
            raise ConfigError(
                f"{flag} is not supported: that weights sharded by it are saved as they train, and resume exactly, was "
                "never seen. Use --use-distributed-optimizer, or leave out --data-checkpoint-path"
            )


def format_of(args: Any) -> str:
    return str(getattr(args, "ckpt_format", "torch"))


def _is_distributed(args: Any) -> bool:
    return bool(getattr(args, "use_distributed_optimizer", False))


def _is_sgd_in_shards(args: Any) -> bool:
    """Megatron gives SGD nothing that makes its state before it is loaded, and calls that all the same."""
    is_sgd = getattr(args, "optimizer", "adam") == "sgd" and not _is_distributed(args)
    return is_sgd and format_of(args) == "torch_dist"


def _is_distributed_adam(args: Any) -> bool:
    return _is_distributed(args) and getattr(args, "optimizer", "adam") == "adam"


def _has_fused_adam() -> bool:
    """Whether Megatron's Adam keeps its step beside the state of the parameters, as its loader expects."""
    from megatron.core.optimizer import distrib_optimizer

    return bool(getattr(distrib_optimizer, "HAVE_APEX_OR_TE", True))
