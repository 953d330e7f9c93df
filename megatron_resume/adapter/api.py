"""What a training loop calls: progress, track, advance."""

from dataclasses import replace

from .ending import truthful_end
from .session import Progress, current
from .tracked import Stateful

__all__ = ["Progress", "advance", "progress", "track"]

_unsaved = Progress()  # counts where no data checkpoint path was set, so that loops run all the same


def progress() -> Progress:
    """How far the job has come: where to begin on a resumed start, and where it is later on.

    Local to this rank, equal on all. Call it before the loop, so that saves count as between episodes.
    """
    session = current()
    return session.progress() if session is not None else _unsaved


def track(name: str, obj: Stateful, *, experience: bool = False) -> None:
    """Let the state of `obj` travel in the data checkpoint, under `name`; call it on every rank.

    On a resumed start `obj.load_state_dict` is called here, with what its `state_dict` gave when the
    point was saved. State is global: that of rank 0 is saved, and every rank gets it.

    Args:
        name: the same at every start.
        obj: has `state_dict` and `load_state_dict`; its state holds JSON values, bytes, tuples, numpy
            arrays and tensors.
        experience: `obj` holds all that is needed to go on in the middle of an episode, so saves in
            there may be committed.

    Raises:
        SystemExit: 78 when the state cannot be stored, or the resume point has none of this name.
    """
    session = current()
    if session is None:
        return
    with truthful_end():
        session.tracked.add(name, obj, experience=experience)
        if session.resumes:
            point = session.resumes.point
            session.tracked.load(name, point.data.tracked, session.arrays, point.name)


def advance(*, samples: int, episodes: int = 1) -> None:
    """Say that an episode is done and that its `samples` prompts, over all ranks, are used up.

    Call it on every rank, before the saves that belong to the end of the episode.
    """
    if samples < 0 or episodes < 0:
        raise ValueError(f"advance(samples={samples}, episodes={episodes}): neither can be negative")
    global _unsaved
    session = current()
    if session is None:
        _unsaved = replace(
            _unsaved,
            episode=_unsaved.episode + episodes,
            consumed_samples=_unsaved.consumed_samples + samples,
        )
        return
    session.counts_episodes = True
    session.episode += episodes
    session.consumed_samples += samples
    session.steps_in_episode = 0
