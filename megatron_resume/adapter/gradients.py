"""A loop that leaves out the sum of gradients over data parallel ranks is told so, for Megatron does not.

Megatron's own `train()` sets `config.finalize_model_grads_func`, by which its schedules sum. Where a script calls
`train_step` itself and leaves it None, each rank trains on its own gradients alone: the weights of the ranks drift
apart, one rank's are saved, and a resumed run goes on from those on all of them.
"""

import logging
from collections.abc import Mapping
from typing import Any

from . import ranks

logger = logging.getLogger("megatron_resume")


def warn_where_not_summed(role: str | None, called_with: Mapping[str, Any]) -> None:
    """Look at what Megatron's train_step of `role` is called with; to be called at its first step. Any rank."""
    num_ranks = ranks.num_that_sum_gradients()
    if num_ranks < 2 or getattr(called_with.get("config"), "finalize_model_grads_func", True) is not None:
        return
    if ranks.rank() == 0:
        logger.warning(
            "%s: gradients are not summed over its %d data parallel ranks, since config.finalize_model_grads_func is "
            "None: their weights drift apart, those of one are saved, and a resume goes on otherwise. After building "
            "the model: get_model_config(model[0]).finalize_model_grads_func = megatron.core.distributed."
            "finalize_model_grads",
            role,
            num_ranks,
        )
