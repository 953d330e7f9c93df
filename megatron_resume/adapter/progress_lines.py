"""One line per train step, for launch engines that take silence of the log for a hang: then none once a rank is stuck.

Under a policy, or with MEGATRON_RESUME_PROGRESS_LINES=1; =0 switches them off. At most one a second, which is silence
to no engine.
"""

import logging
import os
import time

from ..checkpoint.failures import STACKS, life_of, life_path
from ..policy import VARIABLE as POLICY
from . import ranks
from .session import Session

logger = logging.getLogger("megatron_resume")

VARIABLE = "MEGATRON_RESUME_PROGRESS_LINES"
EVERY_S = 1.0

_said_s = 0.0  # on the monotonic clock


def tell(session: Session) -> None:
    """Call after each train step, and after each episode."""
    global _said_s
    now_s = time.monotonic()
    if now_s - _said_s < EVERY_S or ranks.rank() != 0 or not _are_wanted():
        return
    _said_s = now_s
    stacks = life_path(session.root, session.attempt, life_of(os.environ)) / STACKS
    if not stacks.exists():  # where one hangs, watchdogs keep the stacks of all ranks
        logger.info("iteration %d, episode %d", session.iteration, session.episode)


def _are_wanted() -> bool:
    default = "1" if POLICY in os.environ else "0"
    return os.environ.get(VARIABLE, default) not in ("", "0")
