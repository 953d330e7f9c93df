"""Which Megatron arguments change so that a role continues from a resume point. Pure."""

from typing import NamedTuple

from ..checkpoint.folder import ResumePoint
from ..roles import FROZEN

Overrides = dict[str, object]


class Override(NamedTuple):
    """What an argument becomes on a resume, and why."""

    value: object
    why: str


_AT_EVERY_POINT: dict[str, Override] = {
    "load_iteration": Override(-1, "ChatLearn-era loaders read it; Megatron does not know it"),
    "no_load_optim": Override(False, "the optimizer's state belongs to the point"),
    "no_load_rng": Override(False, "so do the random states"),
    "no_load_args": Override(False, "read by ChatLearn's loader only"),
    "no_load_scheduler": Override(False, "read by ChatLearn's loader only"),
    "finetune": Override(False, "else iteration and optimizer are dropped"),
    "load_main_params_from_ckpt": Override(False, "asserts no_load_optim"),
    "adaptive_parallel_strategy_on_checkpoint": Override(False, "read by ChatLearn-era loaders"),
    "exit_on_missing_checkpoint": Override(True, "else Megatron trains from random weights with a warning"),
    "pretrained_checkpoint": Override(None, "else a failed load silently becomes finetuning"),
    "override_ckpt_iteration": Override(None, "else iterations are renumbered"),
}
OVERRIDDEN = frozenset({"load", "ckpt_step", *_AT_EVERY_POINT})


def explained(role: str, point: ResumePoint) -> dict[str, Override]:
    """Megatron arguments to change for `role`, each with the reason; reference and reward keep every argument."""
    if role in FROZEN:
        return {}
    return {
        "load": Override(str(point.directories[role]), "its save folder"),
        "ckpt_step": Override(point.iteration, "Megatron loads this iteration"),
        **_AT_EVERY_POINT,
    }


def overrides_for(role: str, point: ResumePoint) -> Overrides:
    """Megatron arguments to change for `role`; reference and reward keep every argument."""
    return {name: override.value for name, override in explained(role, point).items()}


def differing(wanted: Overrides, actual: object) -> dict[str, tuple[object, object]]:
    """Arguments that `actual` has otherwise: name -> (wanted, found)."""
    return {
        name: (value, getattr(actual, name, None))
        for name, value in wanted.items()
        if getattr(actual, name, None) != value
    }
