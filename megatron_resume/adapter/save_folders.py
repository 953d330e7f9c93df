"""Put a role's save folder in order before a load or a save: what would be in the way is moved aside, and kept."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..checkpoint import fencing, leftovers, storage, untrained
from ..checkpoint.atomic import make_folder
from ..errors import ConfigError, RejoinError, UnreadableError
from ..resume.choose import Fresh, Resume
from . import ranks
from .at_end import at_end
from .ending import naming_the_path
from .session import Session

logger = logging.getLogger("megatron_resume")


def clear_before_load(current: Session, role: str) -> None:
    """Nothing of this job beyond the resume point stays in the role's folder. Call on every rank.

    If this attempt went back and has not trained yet, newer models stay until it does (`lineage.claim`).

    On a fresh start Megatron is to load nothing of this job: with `--load` and `--save` one folder, a save that was
    never committed might be of no one moment with the others. What it left there stays, unless a start over was asked
    for. (Where resuming is switched off, what is loaded is the script's own business.)
    """
    outcome = current.outcome
    _fence(current, role)
    if ranks.rank() == 0:
        if isinstance(outcome, Resume):
            if not untrained.is_untrained(current.root, current.attempt):
                clear_beyond_point(current, role)
            _set_to_point(current, outcome, role)
        elif outcome.start_over:
            _clear_beyond(current, role, 0)
        elif not outcome.requested:
            _hide_uncommitted(current, role)
    ranks.barrier()


def clear_before_save(current: Session, role: str, iteration: int) -> None:
    """No model folder of somebody else stays where shards of two attempts would mix. Call on every rank.

    That is what stands at this very iteration, and before the first save of a start over all that this job's earlier
    attempts began to save.
    """
    _check_name(current, role)
    if role not in current.last_in_folder:
        _look_into(current, role)
    if iteration > current.last_in_folder[role]:
        return
    if ranks.rank() == 0:
        with _reached_by_own_name(current, role) as save:
            moved = leftovers.move_iteration_away(save, iteration, attempt=current.attempt)
        if moved:
            aside = leftovers.abandoned(Path(current.save_folders[role]), current.attempt)
            logger.warning("%s: iteration %d stood there already and was moved to %s", role, iteration, aside)
    ranks.barrier()


def expect_at(current: Session, role: str, iteration: int) -> None:
    """A failed save may have left something at `iteration`."""
    current.last_in_folder[role] = max(iteration, current.last_in_folder[role])


def _look_into(current: Session, role: str) -> None:
    """Before the first save: clear the folder where the start did not, and note the last iteration in it."""
    _fence(current, role)
    last = 0
    if ranks.rank() == 0:
        if isinstance(current.outcome, Fresh) and current.outcome.start_over:
            _clear_beyond(current, role, current.loaded.get(role, 0))
        elif isinstance(current.outcome, Fresh) and role not in current.loaded:
            _tell_of_uncommitted(current, role)
        with _reached_by_own_name(current, role) as save:
            last = max([0, *leftovers.saved_iterations(save)])
    current.last_in_folder[role] = ranks.from_rank_0([last])[0]


@contextmanager
def by_own_name(current: Session, role: str, args: Any) -> Iterator[None]:
    """Let Megatron save by the name that this attempt gave the role's save folder."""
    save = args.save
    args.save = str(fencing.own_name(current.root, current.attempt, role))
    try:
        yield
    finally:
        args.save = save


def _fence(current: Session, role: str) -> None:
    """Before anything of the role is moved or saved: late writers of earlier attempts lose their way.

    Raises:
        RejoinError: A newer attempt began meanwhile.
        ConfigError: A rank does not see the folder of the attempt.
    """
    if role in current.fenced:
        return
    root, attempt, save = current.root, current.attempt, current.save_folders[role]
    if ranks.rank() == 0:
        with naming_the_path(root):
            make_folder(Path(save))  # Megatron would not make its name durable
            fencing.take_names(root, role, before=attempt)
            fencing.make_own_name(root, attempt, role, save)
        if not current.fenced:
            _take_names_at_end(current)
        assert current.lease_keeper is not None
        current.lease_keeper.check()
    ranks.barrier()
    if not ranks.everywhere(fencing.lost_name(root, attempt, role, save) is None):
        raise ConfigError(f"not every rank finds {role}'s --save {save} by way of {root}; all nodes must share both")
    current.fenced.add(role)


def _check_name(current: Session, role: str) -> None:
    """Raises RejoinError where a newer attempt took the name away, and then withdrew: Megatron would save beside it."""
    if role in current.fenced and ranks.rank() == 0:
        try:
            with storage.patience(0):
                lost = fencing.lost_name(current.root, current.attempt, role, current.save_folders[role])
        except UnreadableError as error:  # the writer looks again
            logger.warning("%s: %s", role, error.what)
            return
        if lost:
            raise RejoinError(f"{role} cannot be saved: {lost}; restart to continue from the newest resume point")


def _take_names_at_end(current: Session) -> None:
    """When the writer is done, which needs the names: it is made later, and what came last is called first."""
    pid = os.getpid()  # a forked child ends sooner

    def take() -> None:
        if os.getpid() == pid:
            with suppress(OSError, UnreadableError):
                for role in current.fenced:
                    fencing.take_name(current.root, current.attempt, role)

    at_end(take)


@contextmanager
def _reached_by_own_name(current: Session, role: str) -> Iterator[Path]:
    """The role's save folder, for rank 0 to move things in it: as long as no newer attempt began.

    Raises:
        RejoinError: One did.
        ConfigError: The storage refused.
    """
    try:
        with naming_the_path(Path(current.save_folders[role])):
            yield fencing.own_name(current.root, current.attempt, role)
    except ConfigError:
        assert current.lease_keeper is not None
        current.lease_keeper.check()
        raise


def clear_beyond_point(current: Session, role: str) -> None:
    """On a resume, on rank 0: move what this job saved beyond the point."""
    if not isinstance(current.outcome, Resume):
        return
    with _reached_by_own_name(current, role) as save:
        ours, iteration = leftovers.iterations_of_job(current.root), current.outcome.point.iteration
        moved = leftovers.move_away(save, attempt=current.attempt, beyond=iteration, only=ours)
    _tell(current, role, moved)


def _set_to_point(current: Session, outcome: Resume, role: str) -> None:
    """On rank 0: bring the point's model back, set the tracker."""
    iteration, directory = outcome.point.iteration, outcome.point.directories[role]
    with _reached_by_own_name(current, role) as save:
        model = outcome.point.models.get(role)
        if model is not None and model.parent != directory and storage.exists(model):  # of an abandoned line
            leftovers.put_back(save / model.relative_to(directory), save, iteration, attempt=current.attempt)
        leftovers.write_tracker(save, iteration)


def _hide_uncommitted(current: Session, role: str) -> None:
    """On a fresh start, on rank 0: let the tracker name no save that this job never committed."""
    with _reached_by_own_name(current, role) as save:
        ours = leftovers.iterations_of_job(current.root)
        leftovers.retire_tracker(save, attempt=current.attempt, beyond=0, only=ours)
    _tell_of_uncommitted(current, role)


def _tell_of_uncommitted(current: Session, role: str) -> None:
    ours, save = leftovers.iterations_of_job(current.root), Path(current.save_folders[role])
    left = [iteration for iteration in leftovers.saved_iterations(save) if iteration in ours]
    if left:
        logger.warning(
            "%s: %s holds %s of earlier attempts, never committed to a resume point; each stays until a save takes its "
            "place",
            role,
            save,
            ", ".join(f"iteration {iteration}" for iteration in left),
        )


def _clear_beyond(current: Session, role: str, iteration: int) -> None:
    """On a start over, on rank 0: move away what this job, and nobody else, saved after `iteration`."""
    with _reached_by_own_name(current, role) as save:
        ours = leftovers.iterations_of_job(current.root)
        leftovers.retire_tracker(save, attempt=current.attempt, beyond=iteration, only=ours)
        moved = leftovers.move_away(save, attempt=current.attempt, beyond=iteration, only=ours)
    _tell(current, role, moved)


def _tell(current: Session, role: str, moved: list[int]) -> None:
    if moved:
        iterations = ", ".join(map(str, moved))
        aside = leftovers.abandoned(Path(current.save_folders[role]), current.attempt)
        logger.info("%s: moved iterations %s, left by an earlier attempt, to %s", role, iterations, aside)
