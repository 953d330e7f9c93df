"""The hook on Megatron's train step: who trains must have been resumed, and must save now and then."""

import inspect
import logging
from typing import Any

from ..checkpoint.events import Trained
from ..crash import crash_point
from ..hooks import AnyFunction
from ..watch import marks
from . import (
    background,
    decision,
    gradients,
    life,
    lineage,
    naming,
    progress_lines,
    random_states,
    ranks,
    saving,
    session,
    stopping,
)
from .ending import truthful_end

logger = logging.getLogger("megatron_resume")

STEPS_WITHOUT_SAVE = 1000  # when no --save-interval says how long is too long

_warned = False


def wrap_train_step(original: AnyFunction) -> AnyFunction:
    parameters = tuple(inspect.signature(original).parameters)

    @marks.phase("train")
    def train_step(*args: Any, **kwargs: Any) -> Any:
        current = session.current()
        if current is None:
            result = original(*args, **kwargs)
            marks.has_trained(0)
            return result
        from megatron.training import get_args

        margs = get_args()
        with truthful_end():
            naming.settle(current, margs)
            role = session.role_of(margs, current.config)
            session.check_may_train(current, role)
            saving.check_shared_state()
            current.open()
            if not current.steps:
                lineage.claim(current)
                random_states.tell_of_draws(current)
                stopping.listen(current)
                if not current.counts_episodes:
                    stopping.have_megatron_look(margs)
        if role not in current.steps:
            gradients.warn_where_not_summed(role, {**dict(zip(parameters, args, strict=False)), **kwargs})
        crash_point("train_step", role)
        current.is_in_train_step = True
        result = original(*args, **kwargs)
        current.is_in_train_step = False
        current.steps[role] = current.steps.get(role, 0) + 1
        current.trained += 1
        current.iteration += role in decision.roles_here(current.config)[:1]
        _has_trained(current)
        progress_lines.tell(current)
        saving.after_train_step()
        patience = 2 * (getattr(margs, "save_interval", None) or STEPS_WITHOUT_SAVE)
        if not current.saves and current.steps[role] >= patience:
            warn_of_no_save()
        return result

    return train_step


def wrap_evaluate(original: AnyFunction) -> AnyFunction:
    @marks.phase("evaluate")
    def evaluate(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs)

    return evaluate


def wrap_scheduler_step(original: AnyFunction) -> AnyFunction:
    """Loops with a train step of their own call this: it tells that training goes on inside an episode."""

    def step(self: Any, increment: int) -> Any:
        current = session.current()
        if current is not None and increment and not current.is_loading:  # loading a scheduler steps it too
            if not current.trained:
                with truthful_end():
                    lineage.claim(current)
            current.steps_in_episode += 1
            current.trained += 1
            _has_trained(current)
            if not current.is_in_train_step:
                progress_lines.tell(current)
        return original(self, increment)

    return step


def _has_trained(current: session.Session) -> None:
    marks.has_trained(current.iteration)
    if not current.has_trained and current.lease_keeper is not None:  # rank 0
        current.has_trained = True
        done = Trained()  # its time is now
        background.submit(lambda: life.tell(done))


def warn_of_no_save() -> None:
    """Say once that this process trains and has not called Megatron's save_checkpoint."""
    global _warned
    current = session.current()
    if current is None or not current.steps or current.saves or _warned or ranks.rank() != 0:
        return
    _warned = True
    point = current.resumes.point.name if current.resumes else None
    logger.warning(
        "%d train steps of this attempt and not one call of Megatron's save_checkpoint: %s in %s. "
        "Save with --save-interval, or call save_checkpoint",
        max(current.steps.values()),
        f"a failure now goes back to {point}" if point else "nothing can be resumed",
        current.root,
    )


def forget() -> None:
    """Warn again in a new session, for `uninstall`."""
    global _warned
    _warned = False
