"""Which Megatron arguments change so that a role continues from a resume point. Pure."""

from ..checkpoint.folder import ResumePoint
from ..roles import FROZEN

Overrides = dict[str, object]

_AT_EVERY_POINT: Overrides = {
    "load_iteration": -1,  # ChatLearn-era loaders read it, Megatron does not know it
    "no_load_optim": False,
    "no_load_rng": False,
    "no_load_args": False,  # ChatLearn's loader only, as the next one
    "no_load_scheduler": False,
    "finetune": False,  # else iteration and optimizer are dropped
    "load_main_params_from_ckpt": False,  # asserts no_load_optim
    "adaptive_parallel_strategy_on_checkpoint": False,  # ChatLearn-era loaders
    "exit_on_missing_checkpoint": True,  # else Megatron trains from random weights with a warning
    "pretrained_checkpoint": None,  # else a failed load silently becomes finetuning
    "override_ckpt_iteration": None,  # else iterations are renumbered
}
OVERRIDDEN = frozenset({"load", "ckpt_step", *_AT_EVERY_POINT})


def overrides_for(role: str, point: ResumePoint) -> Overrides:
    """Megatron arguments to change for `role`; reference and reward keep every argument."""
    if role in FROZEN:
        return {}
    return {
        "load": str(point.directories[role]),
        "ckpt_step": point.iteration,  # Megatron's real control
        **_AT_EVERY_POINT,
    }


def differing(wanted: Overrides, actual: object) -> dict[str, tuple[object, object]]:
    """Arguments that `actual` has otherwise: name -> (wanted, found)."""
    return {
        name: (value, getattr(actual, name, None))
        for name, value in wanted.items()
        if getattr(actual, name, None) != value
    }
