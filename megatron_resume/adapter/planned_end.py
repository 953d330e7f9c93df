"""An end that the command asked for, by --exit-interval or --exit-duration-in-mins: the job stops, and is not done.

Megatron leaves with 0 then, as at the end of training. Under `launch` it is 202, so that nobody takes it for that.
Where something else starts the ranks it stays 0, since 202 would have it started again.
"""

import logging
import os
import sys
from typing import Any, NoReturn

from ..checkpoint.events import Stopped
from ..errors import STOPPED
from ..hooks import AnyFunction
from ..watch import marks
from ..watch.endings import VARIABLE as ENDINGS
from . import life, ranks, stopping
from .session import Session, current

logger = logging.getLogger("megatron_resume")


def wrap_checkpoint_and_decide_exit(original: AnyFunction) -> AnyFunction:
    """Megatron's loop asks it after each step, on all ranks alike; where it says so, `sys.exit` is what comes next."""

    def checkpoint_and_decide_exit(*args: Any, **kwargs: Any) -> Any:
        leaves = original(*args, **kwargs)
        session = current()
        if leaves and session is not None and session.is_open and not stopping.is_in_megatrons_loop():
            iteration = kwargs["iteration"] if "iteration" in kwargs else args[3]
            _have_exit_told(session, int(iteration))
        return leaves

    return checkpoint_and_decide_exit


def _have_exit_told(session: Session, iteration: int) -> None:
    from megatron.training import get_args

    args = get_args()
    planned = getattr(args, "train_iters", None) or 0
    if planned and iteration >= planned:
        return  # it is done as well
    by = "--exit-interval" if args.exit_interval and iteration % args.exit_interval == 0 else "--exit-duration-in-mins"
    if iteration in (getattr(args, "phase_transition_iterations", None) or ()):
        by = "--phase-transition-iterations"
    reason = f"at {iteration} of {planned} by {by}" if planned else f"at {iteration} by {by}"
    exits = sys.exit

    def tells(status: Any = None, /) -> NoReturn:
        if sys.exit is tells:
            sys.exit = exits
        if status in (None, 0):
            session.wait_for_commits()
            status = STOPPED if ENDINGS in os.environ and "SLURM_JOB_ID" not in os.environ else 0
            life.ends_with(Stopped(reason=reason, exit_code=status, planned=True))
            marks.leaves(status)
            if ranks.rank() == 0:
                logger.warning("stopped %s, and not done; the same command goes on from there", reason)
        exits(status)
        raise AssertionError

    sys.exit = tells
