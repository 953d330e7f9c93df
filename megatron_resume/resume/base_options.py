"""Options that belong to the checkpoint that `--load` names, on a start that resumes from a point instead. Pure."""

import os
from collections.abc import Mapping
from typing import NamedTuple

from ..checkpoint.folder import ResumePoint
from .overrides import OVERRIDDEN
from .recorded import Arguments

# What is loaded instead of what each one asks for. Of the overridden arguments, only these take something away when
# they are ignored.
_INSTEAD = {
    "load": "{folder} is loaded",
    "ckpt_step": "iteration {iteration} is loaded",
    "finetune": "iteration and optimizer are loaded, too",
    "no_load_optim": "the optimizer is loaded",
    "no_load_rng": "random states are loaded",
    "no_load_args": "the point's counters are loaded",
    "no_load_scheduler": "the schedule is loaded",
    "load_iteration": "iteration {iteration} is loaded",
    "load_main_params_from_ckpt": "main parameters come from the optimizer",
    "pretrained_checkpoint": "{folder} is loaded",
    "override_ckpt_iteration": "iterations are counted on from {iteration}",
}
_NEUTRAL = (None, False, "", 0, -1)


class Ignored(NamedTuple):
    """Options of this start that a resume goes without.

    Attributes:
        of_base: were for the model that training began from, so nobody misses them.
        new: name -> what holds instead; typed for this start, by someone who expects something of them.
        asks_for: the iteration of the job's own folder that a new `--ckpt-step` names.
    """

    of_base: tuple[str, ...] = ()
    new: Mapping[str, str] = {}
    asks_for: int | None = None


def ignored(given: Arguments, first: Arguments | None, role: str, point: ResumePoint) -> Ignored:
    """What `given`, the arguments as they were typed, asks for in vain.

    Args:
        given: recorded before a resume changed them.
        first: those of the first start of the job; None if nothing tells.
    """
    folder = str(point.directories[role])
    typed = {name: given[name] for name in _INSTEAD if given.get(name) not in _NEUTRAL}
    if typed.get("ckpt_step") == point.iteration:
        del typed["ckpt_step"]  # just what is done
    if _is_same(typed.get("load"), folder):
        del typed["load"]
    if "load" in typed:
        return Ignored(of_base=tuple(typed))
    of_base = tuple(name for name, value in typed.items() if first is not None and first.get(name) == value)
    here = {"folder": folder, "iteration": point.iteration}
    new = {name: _INSTEAD[name].format_map(here) for name in typed if name not in of_base}
    step = typed.get("ckpt_step")
    asks = isinstance(step, int) and "ckpt_step" in new and first is not None
    return Ignored(of_base, new, step if asks else None)


def _is_same(path: object, folder: str) -> bool:
    return isinstance(path, str) and os.path.realpath(path) == os.path.realpath(folder)


def of_first_start(recorded: Arguments) -> Arguments | None:
    """The options of the job's first start, from the arguments that a receipt records; None if it does not have them.

    Each attempt hands them on (`handed_on`). Earlier releases recorded what a resume had made of them.
    """
    was_changed = recorded.get("load_iteration") == -1 and recorded.get("exit_on_missing_checkpoint") is True
    if was_changed or "load" not in recorded:
        return None
    return {name: recorded[name] for name in OVERRIDDEN if name in recorded}


def handed_on(arguments: Arguments, first: Arguments | None) -> Arguments:
    """`arguments` for the receipts of an attempt that resumed: with the options of the job's first start."""
    if first is None:
        return arguments
    return {name: value for name, value in arguments.items() if name not in OVERRIDDEN} | first


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")
