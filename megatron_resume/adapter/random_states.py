"""The random states of the resume point: put back where the last load ends, and what has drawn since."""

import logging

from ..checkpoint.arrays import Arrays
from ..errors import DamagedError
from . import ranks, rng
from .session import Session

logger = logging.getLogger("megatron_resume")


def restore(current: Session) -> None:
    """Put back the random states of the resume point, if this process owns its data.

    Call on every rank after each load until training begins: the last load leaves the states as they were saved.

    Raises:
        DamagedError: The saved states cannot be restored.
    """
    if current.resumes is None or not current.owns_data:
        return
    data = current.resumes.point.data
    if data.rng is None:
        return
    try:
        states = rng.states_of(ranks.rank(), data.rng, current.arrays)
        if states is not None:
            rng.restore(states)
    except (LookupError, TypeError, ValueError, RuntimeError) as error:  # torch raises RuntimeErrors
        raise DamagedError(f"the random states of {current.resumes.point.name} are damaged: {error!r:.200}") from error
    if states is None and ranks.rank() == 0:
        logger.warning(
            "the run had %s, now it has %s: random numbers continue as Megatron restores them, not "
            "exactly as they stopped",
            data.rng.layout,
            rng.layout(),
        )


def tell_of_draws(current: Session) -> None:
    """On rank 0, name the generators that have drawn since the last load. Call before the first train step.

    Megatron's RL collects its first rollouts there, so they are not put back: it would collect the same ones again.
    """
    drawn = _drawn(current) if ranks.rank() == 0 else ()
    if drawn:
        logger.info(
            "random numbers were drawn from %s between the last load and the first train step: they continue from "
            "there, as in Megatron. Rollouts may draw there; create anything that draws at each start, such as the "
            "iterator of a DataLoader, before the load",
            ", ".join(drawn),
        )


def _drawn(current: Session) -> tuple[str, ...]:
    if current.resumes is None or not current.owns_data or current.resumes.point.data.rng is None:
        return ()
    saved: Arrays | None = rng.states_of(ranks.rank(), current.resumes.point.data.rng, current.arrays)
    return () if saved is None else rng.differing(saved, rng.capture().arrays())
