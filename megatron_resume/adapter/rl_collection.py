"""The collection of rollouts that Megatron's own RL trains on: it lives in memory only, and a save does not hold it.

Megatron saves by its interval only where a collection ends. A save that SIGTERM or a time limit asks for may come in
the middle of one. A start from there collects again, and the train steps that were left are not made.
"""

import logging
import sys
from typing import Any

from . import ranks

logger = logging.getLogger("megatron_resume")

RL = "megatron.rl.rl_utils"


def warn_of_lost_steps(role: str, iteration: int, args: Any) -> None:
    """On rank 0, say what a save of `iteration` leaves behind, if it comes in the middle of a collection."""
    state = getattr(sys.modules.get(RL), "get_rl_runtime_state", None)  # up to 0.15 Megatron's RL does not run
    if state is None or not getattr(args, "perform_rl_step", False) or ranks.rank() != 0:
        return
    # After a resume a collection need not begin at a multiple of its steps.
    done, steps = iteration - int(state().last_collection_iteration), steps_of_a_collection(args)
    if 0 < done < steps:
        logger.warning(
            "%s of iteration %d is saved in the middle of a collection of rollouts, after %d of its %d train steps. "
            "Rollouts are not saved: a start from there collects new ones, the steps that are left on these (%d) are "
            "lost, and every save by --save-interval comes in the middle of a collection from then on. To resume from "
            "the end of a collection instead: --load-data-checkpoint-iteration",
            role,
            iteration,
            done,
            steps,
            steps - done,
        )


def steps_of_a_collection(args: Any) -> int:
    """Train steps that Megatron's RL makes on the rollouts of one collection; `args` as it validated them."""
    samples: int = args.grpo_prompts_per_step * args.grpo_group_size
    return int(args.grpo_iterations * (samples // args.global_batch_size))
