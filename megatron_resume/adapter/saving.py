"""The hooks on Megatron's saves: capture the moment, and hand it on when Megatron has finished."""

import inspect
import logging
from collections import Counter
from collections.abc import Container
from contextlib import AbstractContextManager
from typing import Any

import msgspec

from ..checkpoint import attempts, commit, storage
from ..checkpoint.arrays import Arrays
from ..checkpoint.layout import PointName
from ..checkpoint.records import DataCheckpoint, Moment, Unknown
from ..crash import crash_point
from ..errors import ConfigError, UnreadableError
from ..hooks import AnyFunction
from ..installed import installed_versions
from ..roles import FROZEN
from ..watch import marks
from . import (
    curves,
    formats,
    gathering,
    helper_deaths,
    lineage,
    naming,
    native_loaders,
    optimizer_state,
    param_gather,
    ranks,
    rl_collection,
    save_folders,
    session,
    state_dicts,
    stopping,
)
from .committer import after_commits
from .ending import truthful_end
from .finalizing import Finalizing, Save
from .finished import FinishedSave, Proofs
from .gathering import Gathered
from .handed_in import HandedIn
from .lease_keeper import superseded
from .session import Session
from .writer import Writer

logger = logging.getLogger("megatron_resume")


class Saves:
    """The saves of this process: which one Megatron is in, which are on their way, which are done."""

    def __init__(self) -> None:
        self.begun: Save | None = None
        self.known: set[tuple[str, int]] = set()  # (role, iteration) saved by this attempt
        self.tried = Counter[tuple[str, int]]()  # also what failed, or is no resume point
        self.unused: list[str] = []  # on rank 0: keys of what ranks left that came to no resume point
        self.writer: Writer | None = None  # on rank 0, from the first save on
        self.tensors: dict[str, HandedIn] = {}  # role -> what its last save holds
        self.looked_at: dict[str, object] = {}  # role -> its model and optimizer, once they may be saved as they are
        self.finalizing = Finalizing(lambda: self.writer.diverged if self.writer else None)

    @property
    def in_flight(self) -> list[Save]:
        """In the order in which they were begun; the same on every rank."""
        return self.finalizing.in_flight

    def hand_on(self) -> Save | None:
        """Give what is done to the writer, in the order in which it was begun; returns the last that completes a point.

        Every rank comes here with the same saves done.
        """
        completing = None
        while self.in_flight and self.in_flight[0].done:
            save = self.in_flight.pop(0)
            if save.finished is not None and self.writer is not None:
                self.writer.enqueue(save.finished)
            completing = save if save.completes else completing
        return completing


_saves = Saves()


def forget() -> None:
    """Wait for pending commits and start anew, for `uninstall`."""
    global _saves
    if _saves.writer is not None:
        _saves.writer.wait()
    _saves.finalizing.forget()
    _saves = Saves()


def wrap_save_checkpoint(original: AnyFunction) -> AnyFunction:
    parameters = tuple(inspect.signature(original).parameters)

    @marks.phase("checkpoint")
    def save_checkpoint(*args: Any, **kwargs: Any) -> Any:
        current = session.current()
        called_with = {**dict(zip(parameters, args, strict=False)), **kwargs}
        if current is None or "iteration" not in called_with:  # then Python says what is missing
            return original(*args, **kwargs)
        margs = _megatron_args()
        with truthful_end():
            save = _begin(current, margs, called_with)
        if save is None:
            param_gather.bring_up_to_date(called_with)
            return original(*args, **kwargs)
        if save.returned:
            return None
        try:
            told = save.tensors.listening(margs, called_with)
            with save_folders.by_own_name(current, save.role, margs), _for_a_last_save(), told:
                param_gather.bring_up_to_date(called_with)
                result = original(*args, **kwargs)
        except BaseException as error:
            _end_if_superseded(current, error)
            _saves.begun = None  # whoever catches it may save again
            _saves.known.discard((save.role, save.iteration))
            _unused(save.finished.states if save.finished else None)
            _saves.tensors.pop(save.role, None)  # perhaps they were not told
            save_folders.expect_at(current, save.role, save.iteration)
            raise
        crash_point("save.end", save.role)
        completing = _returned(save)
        if current.data_elsewhere and _saves.writer is not None:
            _saves.writer.wait()  # Ray ends its actors without a farewell, so nothing may be left to do
        _stop_after(completing)
        return result

    return save_checkpoint


def wrap_init_persistent_async_worker(original: AnyFunction) -> AnyFunction:
    """Megatron starts its worker long before the first save."""

    def init_persistent_async_worker(*args: Any, **kwargs: Any) -> Any:
        with _for_a_last_save():
            return original(*args, **kwargs)

    return init_persistent_async_worker


def wrap_schedule_async_save(original: AnyFunction) -> AnyFunction:
    def schedule_async_save(async_request: Any, *args: Any, **kwargs: Any) -> Any:
        save = _saves.begun
        if save is not None:
            save.requests += 1
            async_request.add_finalize_fn(lambda: _finalized(save))
        with _for_a_last_save():
            return original(async_request, *args, **kwargs)

    return schedule_async_save


def wrap_maybe_finalize_async_save(original: AnyFunction) -> AnyFunction:
    @marks.phase("checkpoint")
    def maybe_finalize_async_save(*args: Any, **kwargs: Any) -> Any:
        try:
            result = original(*args, **kwargs)
        except BaseException as error:
            current = session.current()
            if current is not None:
                _end_if_superseded(current, error)
            raise
        _saves.finalizing.called()
        # Only now, after its all_reduce, has every rank's finalizer run: a mark alone means this rank's.
        _stop_after(_saves.hand_on())
        return result

    return maybe_finalize_async_save


def _end_if_superseded(current: Session, error: BaseException) -> None:
    """Where a newer attempt has taken the save folder's name away, that is what to say of the missing folder."""
    if isinstance(error, SystemExit | KeyboardInterrupt):  # but torch's CheckpointException is no Exception either
        return
    newer = attempts.newer_than(current.root, current.attempt)
    if newer is not None:
        with truthful_end():
            raise superseded(current.attempt, newer) from error


def warn_of_unfinished() -> None:
    """At exit: name asynchronous saves that nobody finalized, and points that wait for another role."""
    if _saves.writer is not None:
        for name, missing in _saves.writer.waiting().items():
            logger.warning(
                "%s is no resume point yet: %s not saved there; it becomes one when their job has come as far",
                name,
                ", ".join(missing),
            )
    _saves.finalizing.warn()


def check_shared_state() -> None:
    """Before more is trained, on rank 0: raises DivergedError when ranks hold different states of what all share."""
    if _saves.writer is not None and _saves.writer.diverged is not None:
        raise _saves.writer.diverged


def after_train_step() -> None:
    """Let Megatron finish asynchronous saves, if the loop does not. Call on every rank."""
    _saves.finalizing.after_step()


def end_if_unfinished() -> None:
    """Call last at the end of this process."""
    _saves.finalizing.end_if_unfinished()


def _megatron_args() -> Any:
    from megatron.training import get_args

    return get_args()


def _finalized(save: Save) -> None:
    save.finalized += 1


def _for_a_last_save() -> AbstractContextManager[None]:
    return helper_deaths.of_this_rank(outlive_sigterm=marks.is_watched())


def _stop_after(save: Save | None) -> None:
    """Where a rank was asked to end, the point that `save` completes is the last."""
    current = session.current()
    if save is not None and current is not None:
        stopping.saved_all(current, PointName(save.iteration, current.attempt), save.nobody_was_asked)


def _returned(save: Save) -> Save | None:
    """Returns it where it completes a point and is done."""
    _saves.begun = None
    save.returned = True
    _saves.in_flight.append(save)
    if save.requests == 0:  # synchronous: Megatron's tracker is written
        return _saves.hand_on()
    if save.completes and stopping.is_agreed():  # nothing else would finish it in time
        _saves.finalizing.ask(blocking=True)
    return None


def _begin(current: Session, args: Any, called_with: dict[str, Any]) -> Save | None:
    """Capture this save; None when it gets no receipt, already `returned` when it is not to be repeated."""
    role = session.role_of(args, current.config)
    iteration = int(called_with["iteration"])
    if role in FROZEN or _is_not_a_resume_point(args, called_with):
        return None
    if iteration == 0:
        _tell_of_iteration_0(role)
        return None
    naming.settle(current, args)
    role = session.role_of(args, current.config)
    is_elsewhere = current.save_folders.get(role or "", session.resolved(args.save)) != session.resolved(args.save)
    if current.evaluates and is_elsewhere:
        return None
    session.check_may_train(current, role)
    assert role is not None
    what = state_dicts.identity(called_with.get("model"), called_with.get("optimizer"))
    is_known = _saves.looked_at.get(role) == what
    if not is_known:
        param_gather.check(role, called_with.get("model"))
    if is_elsewhere:
        return None  # an extra copy, such as the best so far
    current.open()
    _saves.finalizing.before_save(role, current.config.max_uncommitted_saves)
    problem = _look_for_newer_attempt(current)
    if _saves.writer is not None:
        check_shared_state()
        _saves.writer.check(current.config.max_uncommitted_saves)
    current.saves += 1
    current.iteration = iteration
    native_loaders.warn_at_first_save(current, role)
    if role == current.config.trained_roles[0]:
        curves.report(current.root, current.attempt, role, iteration)
    if _is_saved(current, role, iteration):
        return _already_saved(role, iteration)
    _check_counted(current, args, iteration)
    current.hold(role, args)
    _check_all_begun(current, role, iteration)
    if not _saves.known:  # before the first save that is one
        lineage.claim(current)
    save_folders.clear_before_save(current, role, iteration)
    problem = problem or _open_point(current, iteration)
    unstepped = None if is_known else optimizer_state.problem(called_with.get("optimizer"), formats.format_of(args))
    if unstepped is None:
        _saves.looked_at[role] = what
    states = _gather_states(current, role, iteration)
    save = Save(role, iteration, completes=_completes(current, role, iteration, _saves.tried))
    save.calls = _saves.finalizing.calls
    save.tensors = _tensors(current, role, iteration, what)
    if save.completes:
        save.nobody_was_asked = stopping.ask_before_save()
    current.saved_at[role] = (iteration, current.trained)
    if _in_mid_episode_without_experience(current, role, iteration):  # as this rank sees it, others may not
        _unused(states)
    else:
        scheduler = called_with.get("opt_param_scheduler")
        save.finished = _capture(current, save, args, scheduler, states, problem or unstepped)
        if save.finished is not None and unstepped and not problem:
            save.finished = msgspec.structs.replace(save.finished, loses_work=False)
        _saves.known.add((role, iteration))
    _saves.begun = save
    rl_collection.warn_of_lost_steps(role, iteration, args)
    _saves.finalizing.watch_end()
    crash_point("save.begin", role)
    return save


def _check_all_begun(current: Session, role: str, iteration: int) -> None:
    reason = naming.check_begun(current, role, iteration)
    if reason is not None and ranks.rank() == 0:
        logger.warning("%s of iteration %d: %s. The next save ends the job", role, iteration, reason)


def _look_for_newer_attempt(current: Session) -> str | None:
    """On rank 0; raises RejoinError where one began. Returns why nobody can tell: training goes on."""
    try:
        if current.lease_keeper is not None:
            with storage.patience(0):
                current.lease_keeper.check()
    except UnreadableError as error:
        return error.what
    return None


def _is_not_a_resume_point(args: Any, called_with: dict[str, Any]) -> bool:
    """Saves that are not meant to be continued from."""
    converting = getattr(args, "ckpt_convert_format", None) is not None
    return bool(called_with.get("non_persistent_ckpt") or called_with.get("release") or converting)


def _tell_of_iteration_0(role: str | None) -> None:
    if ranks.rank() == 0:
        logger.warning(
            "%s of iteration 0 is saved by Megatron alone and will not be committed: Megatron's --ckpt-step cannot "
            "name iteration 0, so a start would not find it. Save after the first train step",
            role or "a role",
        )


def _is_saved(current: Session, role: str, iteration: int) -> bool:
    """Whether this attempt, the point that it continues from, or what it adopted, holds this iteration of the role.

    Raises:
        ConfigError: The iteration lies before that point, whose line it would overwrite, or is the same though
            the role was trained since.
    """
    point = current.resumes.point.iteration if current.resumes else current.adopted.get(role, 0)
    if iteration < point or (iteration == point and _was_trained(current, role)):
        raise ConfigError(
            f"{role} is to be saved at iteration {iteration}, but this run continued from {point}; count iterations on "
            "from megatron_resume.progress().iteration"
        )
    return (iteration == point and point > 0) or (role, iteration) in _saves.known


def _check_counted(current: Session, args: Any, iteration: int) -> None:
    """Raises ConfigError where an order is tracked whose samples nobody counts: the next start would repeat them."""
    if current.counts_episodes or not current.tracked.orders:
        return
    begun = current.resumes.point.data.progress.consumed_samples if current.resumes else 0
    progress = _progress(current, args)
    if progress is msgspec.UNSET or progress.consumed_samples != begun:
        return
    raise ConfigError(
        f"until iteration {iteration} nobody counted a sample of {', '.join(map(repr, current.tracked.orders))}: the "
        f"next start would begin at sample {begun} again. Call megatron_resume.advance(samples=...) at the end of each "
        "episode, before its saves"
    )


def _was_trained(current: Session, role: str) -> bool:
    """Whether an episode with train steps of `role` was done since the resume point."""
    resumes = current.resumes
    if resumes is None:
        return role in current.steps
    return role in current.steps and current.episode > resumes.point.data.progress.episode


def _already_saved(role: str, iteration: int) -> Save:
    logger.info("%s of iteration %d is saved already and not saved again", role, iteration)
    if any((save.role, save.iteration) == (role, iteration) for save in _saves.in_flight):
        _saves.finalizing.ask(blocking=True)
    return Save(role, iteration, returned=True)


def _in_mid_episode_without_experience(current: Session, role: str, iteration: int) -> bool:
    if not current.counts_episodes or current.steps_in_episode == 0 or current.tracked.experience:
        return False
    if ranks.rank() == 0:
        reason = (
            f"episode {current.episode} is not done and its experience is not tracked; save after advance(), or "
            "track(name, experience, experience=True)"
        )
        logger.warning("%s of iteration %d will not be committed: %s", role, iteration, reason)
        _writer_of(current).refuse(PointName(iteration, current.attempt), current.episode, reason)
    return True


def _open_point(current: Session, iteration: int) -> str | None:
    """On rank 0, make the point's folder: it tells later attempts that this iteration was begun here.

    Returns why that failed: training goes on, and the writer says so.
    """
    if ranks.rank() == 0:
        try:
            commit.open_point(current.root, PointName(iteration, current.attempt))
        except OSError as error:
            return f"{current.root} cannot be written: {error.strerror}"
    return None


def scheduler_steps(scheduler: Any) -> int | None:
    """How far Megatron's learning rate schedule is, in samples."""
    steps = getattr(scheduler, "num_steps", None)
    return None if steps is None else int(steps)


def _gather_states(current: Session, role: str, iteration: int) -> Gathered | None:
    """With the save that completes what this process holds, where it owns the data. Call on every rank."""
    _saves.tried[role, iteration] += 1
    if not (current.owns_data and _completes(current, role, iteration, _saves.tried)):
        return None
    key = _key(current, role, iteration)
    unused, _saves.unused = tuple(_saves.unused), []
    if _saves.writer is not None:
        unused += _saves.writer.take_unused()
    return gathering.gather(key, unused, current.tracked)


def _tensors(current: Session, role: str, iteration: int, what: object) -> HandedIn:
    """What ranks tell of the tensors that are saved: once, as long as model and optimizer are the same objects."""
    known = _saves.tensors.get(role)
    if known is None or known.what != what:
        known = _saves.tensors[role] = HandedIn(f"{_key(current, role, iteration)}/{role}/tensors", what)
    return known


def _key(current: Session, role: str, iteration: int) -> str:
    """Of what ranks leave in the store for this save."""
    return f"megatron_resume/{current.attempt}/{iteration}/{_saves.tried[role, iteration]}"


def _completes(current: Session, role: str, iteration: int, saves: Container[tuple[str, int]]) -> bool:
    return all(other == role or (other, iteration) in saves for other in current.save_folders)


def _unused(states: Gathered | None) -> None:
    """These random states will not be asked for, and go when the next ones do."""
    _saves.unused += gathering.keys_of(states)


def _capture(
    current: Session, save: Save, args: Any, scheduler: Any, states: Gathered | None, problem: str | None
) -> FinishedSave | None:
    """All that belongs to this moment, for the writer on rank 0."""
    if ranks.rank() != 0:
        return None
    name = PointName(save.iteration, current.attempt)
    _writer_of(current)
    progress = _progress(current, args)
    completes = states is not None and _completes(current, save.role, save.iteration, _saves.known)
    data, arrays, proofs = _data(current, name, progress) if completes else (None, {}, {})
    if not completes:
        _unused(states)
    return FinishedSave(
        name=name,
        nonce=current.nonce,
        role=save.role,
        save=session.resolved(args.save),
        format=formats.format_of(args),
        progress=progress,
        consumed_train_samples=int(getattr(args, "consumed_train_samples", 0)),
        scheduler_steps=scheduler_steps(scheduler),
        versions=installed_versions(),
        arguments=current.arguments.get(save.role, {}),
        data=data,
        arrays=arrays,
        states=states if completes else None,
        proofs=proofs,
        tensors=save.tensors,
        problem=problem,
    )


def _writer_of(current: Session) -> Writer:
    """On rank 0."""
    if _saves.writer is None:
        _saves.writer = _writer(current)
        current.wait_for_commits = _saves.writer.wait
    return _saves.writer


def _writer(current: Session) -> Writer:
    config = current.config
    assert current.lease_keeper is not None
    follows = after_commits(current.root, current.attempt, config)
    return Writer(current.root, config.trained_roles, current.lease_keeper.stop_if_superseded, follows)


def _progress(current: Session, args: Any) -> Moment | Unknown:
    if current.data_elsewhere:
        return msgspec.UNSET
    if not current.counts_episodes:  # pretraining: Megatron counts the samples
        return Moment(episode=0, consumed_samples=int(getattr(args, "consumed_train_samples", 0)))
    return Moment(
        episode=current.episode,
        consumed_samples=current.consumed_samples,
        mid_episode=current.steps_in_episode > 0,
    )


def _data(current: Session, name: PointName, progress: Moment | Unknown) -> tuple[DataCheckpoint, Arrays, Proofs]:
    assert isinstance(progress, Moment)  # else another process owns the data
    tracked, arrays = current.tracked.capture(progress.consumed_samples)
    data = DataCheckpoint(
        iteration=name.iteration,
        attempt=name.attempt,
        nonce=current.nonce,
        progress=progress,
        tracked=tracked,
        rng=None,  # the writer unpacks it, and computes the fingerprints
        fingerprints={},
    )
    return data, arrays, current.tracked.proofs(progress.consumed_samples)
