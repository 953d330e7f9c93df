"""A start with --skip-train: it loads the point that a resume would, begins no attempt, and changes nothing."""

import logging
import os
from pathlib import Path
from typing import Any

import msgspec

from ..checkpoint.launch_key import launch_key
from ..checkpoint.layout import model_folder
from ..config import ResumeConfig
from ..errors import ConfigError
from ..resume.choose import Fresh, Resume
from ..resume.overrides import Overrides
from . import decision, ranks, session
from .session import Session

logger = logging.getLogger("megatron_resume")

OPTION = "skip_train"
_AS_TYPED = ("no_load_optim", "no_load_rng", "no_load_scheduler", "load_main_params_from_ckpt")  # nothing is trained


def is_asked_for(args: Any) -> bool:
    return bool(getattr(args, OPTION, None))


class Evaluation(Session):
    """A process that evaluates, perhaps while the job trains: without number, lease, receipt or claim."""

    @property
    def evaluates(self) -> bool:
        return True

    @property
    def owns_data(self) -> bool:
        return False  # random states stay as Megatron has them: nobody continues from here

    def overrides(self, role: str) -> Overrides:
        return {name: value for name, value in super().overrides(role).items() if name not in _AS_TYPED}

    def hold(self, role: str, args: Any) -> None:
        """Note where the model of `role` is saved, so that nothing else is saved there.

        Raises:
            ConfigError: The model of the resume point was moved aside.
        """
        if isinstance(self.outcome, Resume):
            _check_is_in_place(self.outcome, role)
            self.save_folders[role] = session.resolved(str(self.outcome.point.directories[role]))
        elif getattr(args, "save", None):
            self.save_folders[role] = session.resolved(args.save)

    def open(self) -> None:
        """Begin no attempt; the ranks only compare what they decided. Call on every rank."""
        self.share_decision()


def _check_is_in_place(outcome: Resume, role: str) -> None:
    model = outcome.point.models.get(role)
    if model is not None and model.parent != outcome.point.directories[role]:
        raise ConfigError(
            f"the model of {role} of {outcome.point.name} was moved aside to {model}, and an evaluation moves nothing "
            f"back: copy that folder to {outcome.point.directories[role] / model_folder(outcome.point.iteration)}"
        )


def begin(config: ResumeConfig, args: Any) -> Session:
    """Decide what is evaluated, each rank for itself; `share_decision` compares.

    Raises:
        ResumeError: A resume would be refused, too.
    """
    root = Path(os.path.abspath(str(config.data_checkpoint_path)))
    config = decision.with_roles_of_job(root, config)
    # No attempt is of this launch: what was asked for is always done, and never done for good.
    launch = msgspec.structs.replace(launch_key(os.environ), job="")
    outcome = decision.accepted(decision.decide(root, config, launch)[1])
    current = Evaluation(config, root)
    current.adopt(outcome)
    role = session.role_of(args, config)
    if role in config.trained_roles and role is not None:
        current.role_of_command = role
        current.hold(role, args)
    if ranks.rank() == 0:
        _tell(outcome)
    return current


def _tell(outcome: Fresh | Resume) -> None:
    what = str(outcome.point.name) if isinstance(outcome, Resume) else "what --load names"
    logger.info("--skip-train: %s is evaluated, and no attempt begins: %s", what, outcome.reason)
    for passed in outcome.passed_over:
        logger.info("%s", passed)
