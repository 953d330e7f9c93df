"""Put a role's save folder in order before a load or a save: what would be in the way is moved aside, and kept."""

import logging
from pathlib import Path

from ..checkpoint import leftovers
from ..resume.choose import Fresh, Resume
from . import ranks
from .ending import naming_the_path
from .session import Session

logger = logging.getLogger("megatron_resume")


def clear_before_load(current: Session, role: str) -> None:
    """Nothing of this job beyond the resume point stays in the role's folder. Call on every rank.

    On a fresh start nothing of this job stays there at all: with `--load` and `--save` one folder, a save
    that was never committed must not be loaded. (Where resuming is switched off, what is loaded is the
    script's own business.)
    """
    outcome = current.outcome
    if ranks.rank() == 0:
        if isinstance(outcome, Resume):
            clear_beyond_point(current, outcome, role)
        elif not outcome.requested or outcome.start_over:
            _clear_beyond(current, role, 0)
    ranks.barrier()


def clear_before_save(current: Session, role: str, iteration: int, *, first: bool) -> None:
    """No model folder of somebody else stays where shards of two attempts would mix. Call on every rank.

    Before the `first` save of a fresh start that is what this job's earlier attempts began to save after
    the loaded iteration, and always what stands at this very iteration.
    """
    if ranks.rank() == 0:
        save = Path(current.save_folders[role])
        if first and isinstance(current.outcome, Fresh):
            _clear_beyond(current, role, current.loaded.get(role, 0))
        with naming_the_path(save):
            moved = leftovers.move_away(save, attempt=current.attempt, beyond=iteration - 1, only=(iteration,))
        if moved:
            aside = leftovers.abandoned(save, current.attempt)
            logger.warning("%s: iteration %d stood there already and was moved to %s", role, iteration, aside)
    ranks.barrier()


def clear_beyond_point(current: Session, outcome: Resume, role: str) -> None:
    """On rank 0: move what this job saved beyond the point, bring the point's model back, set the tracker."""
    iteration, directory = outcome.point.iteration, outcome.point.directories[role]
    with naming_the_path(directory):
        ours = leftovers.iterations_of_job(current.root)
        moved = leftovers.move_away(directory, attempt=current.attempt, beyond=iteration, only=ours)
        model = outcome.point.models.get(role)
        if model is not None and model.parent != directory and model.exists():  # of an abandoned line
            leftovers.put_back(model, directory, iteration, attempt=current.attempt)
        leftovers.write_tracker(directory, iteration)
    _tell(current, role, directory, moved)


def _clear_beyond(current: Session, role: str, iteration: int) -> None:
    """On a fresh start, on rank 0: move away what this job, and nobody else, saved after `iteration`."""
    save = Path(current.save_folders[role])
    with naming_the_path(save):
        ours = leftovers.iterations_of_job(current.root)
        moved = leftovers.move_away(save, attempt=current.attempt, beyond=iteration, only=ours)
        if moved:
            leftovers.retire_tracker(save, attempt=current.attempt)
    _tell(current, role, save, moved)


def _tell(current: Session, role: str, save: Path, moved: list[int]) -> None:
    if moved:
        iterations = ", ".join(map(str, moved))
        aside = leftovers.abandoned(save, current.attempt)
        logger.info("%s: moved iterations %s, left by an earlier attempt, to %s", role, iterations, aside)
