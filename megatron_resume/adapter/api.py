"""What a training loop calls: progress, track, advance, should_stop."""

import logging
from typing import Any

import msgspec

from ..checkpoint.folder import ResumePoint
from ..errors import ConfigError, MismatchError
from ..watch import marks
from ..watch.marks import mark_progress, phase
from . import adoption, progress_lines, ranks, stopping
from .ending import truthful_end
from .orders import check_proof, order_of
from .session import Progress, Session, current, has_begun
from .tracked import Tracked
from .versions import hook_set

logger = logging.getLogger("megatron_resume")

__all__ = ["Progress", "advance", "mark_progress", "phase", "progress", "should_stop", "track"]

# What counts and follows where no data checkpoint path was set, so that loops run all the same.
_unsaved, _unsaved_tracked = Progress(), Tracked()


def _session(caller: str) -> Session | None:
    """The session; ends the process when it is not known yet whether there is one."""
    if hook_set.installed and not has_begun():
        with truthful_end():
            raise ConfigError(
                f"{caller}() was called before Megatron parsed its arguments, so nothing is known of this run yet; "
                "call it after initialize_megatron()"
            )
    return current()


def progress() -> Progress:
    """How far the job has come: where to begin on a resumed start, and where it is later on.

    Local to this rank, equal on all. Call it before the loop, so that saves count as between episodes.
    """
    session = _session("progress")
    if session is None:
        return _unsaved
    if session.is_open:
        stopping.listen(session)
    found = session.progress()
    if session.adopted:
        with truthful_end():
            adoption.check_position(session)
    return found


def should_stop() -> bool:
    """Whether the job was asked to end (SIGTERM, on any rank): then save all roles at once, if they can be saved.

    Call it on every rank at the same place, where a save could follow, such as after `advance`; it costs one small
    collective. The process ends with 202 by itself as soon as what was trained is committed: here, where that is so
    already, or in the save that completes the point. A loop that never calls it ends so after a save of its own, if
    that comes within the grace period of the policy.
    """
    session = _session("should_stop")
    return session is not None and stopping.should_stop(session)


def track(name: str, obj: Any, *, experience: bool = False, per_rank: bool = False, own_position: bool = False) -> None:
    """Let the state of `obj` travel in the data checkpoint, under `name`; call it on every rank.

    On a resumed start the state that was saved is given back here: before models are loaded, so that a dataset that
    changed is refused before any work. There are three kinds:

    - State of the job, as of a controller: that of rank 0 is saved, and every rank gets it. It must be the same on all
      ranks that track it: a save at which it is not is not committed, and the job ends with 78 at its next step.
    - Orders that prompts are drawn in: `megatron_resume.data.EpisodeSampler`, and Megatron's own
      `MegatronPretrainingSampler` and `MegatronPretrainingRandomSampler`. They follow the job's consumed samples,
      whatever a loader has drawn ahead, and `advance` moves an EpisodeSampler.
    - State of each rank: torchdata's `StatefulDataLoader`, and what is tracked with `per_rank`. That of every rank is
      saved, and each gets its own; another number of data-parallel ranks is refused, and where tensor- or
      pipeline-parallel ranks differ, too, any other layout.

    Args:
        name: the same at every start.
        obj: has `state_dict` and `load_state_dict`, or is one of the above; its state holds JSON values, bytes,
            tuples, numpy arrays and tensors. Subclasses of dict come back as plain dicts. Or None, on a rank that
            has no such object, as tensor-parallel ranks have no loader.
        experience: `obj` holds all that is needed to go on in the middle of an episode, so saves in
            there may be committed.
        per_rank: each rank has a state of its own, as of a mean of what it saw, or an average of its shard.
        own_position: a sampler that is not the order of the prompts, as of an evaluation: it keeps its own position.

    Raises:
        SystemExit: 78 when the state cannot be stored, the resume point has none of this name, or the dataset is not
            the one that it was saved with (see `--on-dataset-change`).
    """
    session = _session("track")
    if obj is None:
        return
    if session is None:
        order = order_of(obj)
        if order is not None and not own_position:
            _unsaved_tracked.orders[name] = order
        return
    with truthful_end():
        session.tracked.add(name, obj, experience=experience, per_rank=per_rank, own_position=own_position)
        adoption.check_position(session)
        if session.resumes and session.evaluates:
            _restore_for_evaluation(session, session.resumes.point, name)
        elif session.resumes:
            _restore(session, session.resumes.point, name)
        elif session.consumed_samples and not session.steps:  # said before, of models that are adopted
            session.tracked.move_to(session.consumed_samples)


def _restore_for_evaluation(session: Session, point: ResumePoint, name: str) -> None:
    """As far as the state fits: it may be evaluated on fewer ranks, and with other data."""
    try:
        _restore(session, point, name)
    except MismatchError as error:
        if ranks.rank() == 0:
            logger.warning("%r begins as the script made it, since nothing is trained here: %s", name, error)


def _restore(session: Session, point: ResumePoint, name: str) -> None:
    data, order = point.data, session.tracked.orders.get(name)
    consumed = data.progress.consumed_samples
    if data.tracked is msgspec.UNSET:
        if order is not None:
            order.move_to(consumed)
        elif ranks.rank() == 0:
            logger.warning(
                "%s holds no tracked state, as an imported one: %r begins as the script made it", point.name, name
            )
        return
    change = session.tracked.load(
        name,
        data.tracked,
        session.arrays,
        point.name,
        consumed_samples=consumed,
        mid_episode=data.progress.mid_episode,
        on_dataset_change=session.config.on_dataset_change,
    )
    if change and ranks.rank() == 0:
        logger.warning("%r: %s", name, change)
    if order is not None:
        check_proof(name, order, data.fingerprints.get(name), consumed)


def advance(*, samples: int, episodes: int = 1) -> None:
    """Say that an episode is done and that its `samples` prompts, over all ranks, are used up.

    Call it on every rank, before the saves that belong to the end of the episode.
    """
    if samples < 0 or episodes < 0:
        raise ValueError(f"advance(samples={samples}, episodes={episodes}): neither can be negative")
    global _unsaved
    session = _session("advance")
    marks.mark_progress()
    if session is None:
        _unsaved = msgspec.structs.replace(
            _unsaved,
            episode=_unsaved.episode + episodes,
            consumed_samples=_unsaved.consumed_samples + samples,
        )
        _unsaved_tracked.move_to(_unsaved.consumed_samples)
        return
    session.counts_episodes = True
    session.episode += episodes
    session.consumed_samples += samples
    session.tracked.move_to(session.consumed_samples)
    session.steps_in_episode = 0
    progress_lines.tell(session)
