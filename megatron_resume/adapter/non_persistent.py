"""Megatron's non-persistent checkpoints: a resume that leaves a newer one unused says so."""

import logging
import os
import re
from typing import Any

from ..checkpoint.layout import TRACKER, model_folder
from ..resume.choose import Resume
from . import ranks

logger = logging.getLogger("megatron_resume")

_LOCAL = re.compile(r"iter_(\d+)_")
_SUBFOLDER = "non_persistent"  # Megatron's, of the folder that is loaded from


def tell_of_newer(resume: Resume, role: str, args: Any) -> None:
    """Warn on rank 0 if a non-persistent checkpoint of `role` is newer than the resume point.

    Megatron alone would load it. It is not used: it holds one role, and neither prompts nor tracked state.
    """
    if ranks.rank() != 0:
        return
    newer = _newer(args, str(resume.point.directories[role]), resume.point.iteration)
    if newer is not None:
        logger.warning(
            "%s holds a newer checkpoint of %s and is not used: non-persistent checkpoints hold neither prompts nor "
            "tracked state, so %s continues from %s. To lose less, lower --save-interval",
            newer,
            role,
            role,
            resume.point.name,
        )


def _newer(args: Any, directory: str, iteration: int) -> str | None:
    """The folder of a newer checkpoint, as Megatron would look for it."""
    kind = getattr(args, "non_persistent_ckpt_type", None)
    if kind == "local":  # each node has its own; only all ranks together know whether it is whole
        local = getattr(args, "non_persistent_local_ckpt_dir", None)
        files = [name for _, _, names in os.walk(local) for name in names] if local else []
        saved = [int(named[1]) for name in files if (named := _LOCAL.match(name))]
        return str(local) if max(saved, default=0) > iteration else None
    if kind != "global":
        return None
    folder = getattr(args, "non_persistent_global_ckpt_dir", None) or os.path.join(directory, _SUBFOLDER)
    found = _tracked(folder)
    return os.path.join(folder, model_folder(found)) if found > iteration else None


def _tracked(folder: str) -> int:
    """The iteration that Megatron's tracker names; 0 if there is none that can be read."""
    try:
        with open(os.path.join(folder, TRACKER), encoding="ascii") as file:
            text = file.read(32).strip()
    except (OSError, UnicodeDecodeError):
        return 0
    return int(text) if text.isdecimal() else 0
