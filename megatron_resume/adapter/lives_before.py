"""The lives of the job before this one: whether they leave it a chance, and what they tell of the newest point."""

import argparse
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..checkpoint.atomic import make_folder, replace
from ..checkpoint.attempts import newest_started
from ..checkpoint.failures import FAILURES, life_named
from ..checkpoint.launch_key import launch_key
from ..checkpoint.lives import NEW_BUDGET, NEW_BUDGET_VARIABLE, NewBudget, lives
from ..checkpoint.records import encode
from ..config import ResumeConfig, add_flags, resolve
from ..errors import ConfigError
from ..policy import VARIABLE, policy_of_environ
from ..resume.budget import budget
from ..watch import marks
from .ending import naming_the_path

logger = logging.getLogger("megatron_resume")

_has_checked = False


def check_budget(argv: Sequence[str] = (), environ: Mapping[str, str] = os.environ) -> None:
    """End this start where the lives before leave no chance: on rank 0, under a policy; once.

    Called on each rank before Megatron is imported, where the command line or the environment tell where the folder
    is: from then on its end is recorded there.

    Raises:
        CrashLoopError: The restarts are used up, or the same place ended too many lives.
        ConfigError: The last life of this launch was ended by what no restart mends.
    """
    if "RANK" not in environ or "--skip-train" in (argv or sys.argv):  # an evaluation is no life of the job
        return
    flags, _ = add_flags(argparse.ArgumentParser(add_help=False, allow_abbrev=False)).parse_known_args(
        list(argv or sys.argv[1:])
    )
    try:
        config = resolve(vars(flags), environ)
    except ConfigError:
        return  # it is told where Megatron parses the whole command line
    if config.data_checkpoint_path is not None:
        marks.knows_root(Path(os.path.abspath(config.data_checkpoint_path)))
    check_budget_of(config, environ)


def check_budget_of(config: ResumeConfig, environ: Mapping[str, str]) -> None:
    """The same, with the configuration at hand."""
    global _has_checked
    if _has_checked or config.data_checkpoint_path is None or VARIABLE not in environ or environ.get("RANK") != "0":
        return
    _has_checked = True
    root = Path(os.path.abspath(config.data_checkpoint_path))
    if token := environ.get(NEW_BUDGET_VARIABLE):
        with naming_the_path(root):
            count_anew(root, token)
    found = budget(policy_of_environ(environ), lives(root), launch_key(environ).job)
    if found.over is not None:
        raise found.over
    for line in found.story[:1]:
        logger.warning("restart %d: %s", found.used, line)


def count_anew(root: Path, token: str) -> None:
    """Restarts are counted from now on; a second call with the same `token` does nothing."""
    path = root / FAILURES / f"new_budget_{life_named(token)}" / NEW_BUDGET
    if root.is_dir() and not path.exists():
        make_folder(path.parent, below=root)
        replace(path, encode(NewBudget(after=newest_started(root), time_s=time.time())), below=root)
