"""What a training loop calls: progress, track, advance."""

import logging

import msgspec

from ..checkpoint.folder import ResumePoint
from ..errors import ConfigError
from . import ranks
from .ending import truthful_end
from .session import Progress, Session, current, has_begun
from .tracked import Stateful
from .versions import hook_set

logger = logging.getLogger("megatron_resume")

__all__ = ["Progress", "advance", "progress", "track"]

_unsaved = Progress()  # counts where no data checkpoint path was set, so that loops run all the same


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
    return session.progress() if session is not None else _unsaved


def track(name: str, obj: Stateful, *, experience: bool = False) -> None:
    """Let the state of `obj` travel in the data checkpoint, under `name`; call it on every rank.

    On a resumed start `obj.load_state_dict` is called here, with what its `state_dict` gave when the
    point was saved. State is global: that of rank 0 is saved, and every rank gets it.

    Args:
        name: the same at every start.
        obj: has `state_dict` and `load_state_dict`; its state holds JSON values, bytes, tuples, numpy
            arrays and tensors. Subclasses of dict come back as plain dicts.
        experience: `obj` holds all that is needed to go on in the middle of an episode, so saves in
            there may be committed.

    Raises:
        SystemExit: 78 when the state cannot be stored, or the resume point has none of this name.
    """
    session = _session("track")
    if session is None:
        return
    with truthful_end():
        session.tracked.add(name, obj, experience=experience)
        if session.resumes:
            _restore(session, session.resumes.point, name)


def _restore(session: Session, point: ResumePoint, name: str) -> None:
    if point.data.tracked is not msgspec.UNSET:
        session.tracked.load(name, point.data.tracked, session.arrays, point.name)
    elif ranks.rank() == 0:
        logger.warning(
            "%s holds no tracked state, as an imported one: %r begins as the script made it", point.name, name
        )


def advance(*, samples: int, episodes: int = 1) -> None:
    """Say that an episode is done and that its `samples` prompts, over all ranks, are used up.

    Call it on every rank, before the saves that belong to the end of the episode.
    """
    if samples < 0 or episodes < 0:
        raise ValueError(f"advance(samples={samples}, episodes={episodes}): neither can be negative")
    global _unsaved
    session = _session("advance")
    if session is None:
        _unsaved = msgspec.structs.replace(
            _unsaved,
            episode=_unsaved.episode + episodes,
            consumed_samples=_unsaved.consumed_samples + samples,
        )
        return
    session.counts_episodes = True
    session.episode += episodes
    session.consumed_samples += samples
    session.steps_in_episode = 0
