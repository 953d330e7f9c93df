"""Megatron's own loaders at a save and a resume: what they cannot continue exactly is warned of, and then refused."""

import logging
from typing import Any

from msgspec import UNSET

from ..checkpoint.folder import ResumePoint
from ..errors import MismatchError
from ..resume import loader_order
from ..resume.recorded import Arguments
from . import loaders, ranks
from .orders import PROOF
from .session import Session

logger = logging.getLogger("megatron_resume")


def check(current: Session, role: str, point: ResumePoint, arguments: Arguments) -> None:
    """Before `role` is loaded with `arguments`.

    Raises:
        MismatchError: Rows would come again, or never, and the job did not say that it knows.
    """
    saved = point.receipts[role].arguments
    if role != current.config.trained_roles[0] or saved is UNSET or not _counts_by_megatron(current, point, saved):
        return
    problem = loader_order.problem(saved, arguments)
    if problem is None:
        return
    if not current.config.accept_inexact_data:
        raise MismatchError(
            f"start refused: the prompts do not go on where {point.name} stopped: {problem}. Rows would come again or "
            "never. Start as it was saved; or type --accept-inexact-data to go on knowingly"
        )
    if ranks.rank() == 0:
        logger.warning("rows come again or never, as --accept-inexact-data allows: %s", problem)


def warn_at_first_save(current: Session, role: str) -> None:
    """Once, on rank 0: say of a loader that no start can continue it, while there is little to lose."""
    first = role == current.config.trained_roles[0] and current.saves == 1
    if not first or ranks.rank() != 0 or current.counts_episodes or current.data_elsewhere:
        return
    problem = None if current.tracked.objects else loader_order.unsaved(current.arguments.get(role, {}))
    if problem and not current.config.accept_inexact_data:
        logger.warning(
            "a resume will be refused, since rows would come again or never: %s. Save its state, or track() it; "
            "--accept-inexact-data goes on without",
            problem,
        )


def _counts_by_megatron(current: Session, point: ResumePoint, saved: Arguments) -> bool:
    """Whether nothing but Megatron's count of samples says where the job stood in its data.

    No episode does, nor a tracked sampler, which has a check of its own; beside an external loader, nothing tracked.
    """
    progress, tracked = point.data.progress, point.data.tracked
    if current.data_elsewhere or progress.episode or progress.mid_episode:
        return False
    proofs = any(PROOF in print for print in point.data.fingerprints.values() if isinstance(print, dict))
    states = tracked.values() if isinstance(tracked, dict) else ()
    is_told = any(map(_is_position, states)) or (bool(states) and loader_order.is_external(saved))
    return not proofs and not is_told


def _is_position(state: Any) -> bool:
    """Whether this is the stored state of a sampler or of loaders, which have checks of their own."""
    return loaders.is_of_ranks(state) or (isinstance(state, dict) and "consumed_samples" in state)
