"""The hook on Megatron's loads: arguments still hold, files are as saved, what came back is audited."""

import functools
import inspect
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from msgspec import UNSET

from ..checkpoint.digests import digests_of
from ..checkpoint.layout import TRACKER, model_folder
from ..checkpoint.model_files import problem_with_files
from ..errors import ConfigError, DamagedError
from ..hooks import AnyFunction
from ..resume.choose import Resume
from ..resume.overrides import differing
from ..roles import FROZEN
from ..watch import marks
from . import (
    adoption,
    base_weights,
    curves,
    naming,
    non_persistent,
    random_states,
    ranks,
    save_folders,
    saving,
    session,
    whole_loads,
)
from .ending import sys_exit_is_a_failure, truthful_end
from .session import Session

logger = logging.getLogger("megatron_resume")


def wrap_load_checkpoint(original: AnyFunction) -> AnyFunction:
    signature = inspect.signature(original)

    @marks.phase("checkpoint")
    def load_checkpoint(*args: Any, **kwargs: Any) -> Any:
        current = session.current()
        if current is None:
            return original(*args, **kwargs)
        from megatron.training import get_args

        margs = get_args()
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        with truthful_end():
            current.share_decision()
            role = _role_to_resume(current, margs, bound.arguments)
            if role is None:
                _check_frozen_source(current, margs, bound.arguments)
                base_weights.check(current, margs, bound.arguments)
            else:
                adoption.check_before_load(current, role, margs)
                current.open()
                current.hold(role, margs)
                if not current.evaluates:
                    save_folders.clear_before_load(current, role)
            with sys_exit_is_a_failure(margs), _loading(current):
                if role is not None and current.resumes:
                    load = functools.partial(original, *args, **kwargs)
                    result = _load(current, current.resumes, role, margs, bound.arguments, load)
                else:
                    is_of_no_use = non_persistent.is_of_no_use(current, role, margs)
                    given = base_weights.as_given(current, margs, bound.arguments)
                    with given, non_persistent.left_out(margs, if_=is_of_no_use):
                        result = original(*args, **kwargs)
                    with truthful_end():
                        _loaded_otherwise(current, margs, result)
            if not current.trained:
                random_states.restore(current)
        return result

    return load_checkpoint


@contextmanager
def _loading(current: Session) -> Iterator[None]:
    current.is_loading = True
    try:
        yield
    finally:
        current.is_loading = False


def _check_frozen_source(current: Session, args: Any, called_with: dict[str, Any]) -> None:
    """A frozen role must load what it was meant to: neither trained weights nor nothing.

    Raises:
        ConfigError: Its folder is where a trained role saves.
        DamagedError: Its folder holds no checkpoint; Megatron would go on with random weights.
    """
    role = session.role_of(args, current.config)
    if role not in FROZEN or not args.load or called_with.get("load_arg", "load") != "load":
        return
    folder, pinned = session.resolved(args.load), getattr(args, "ckpt_step", None)
    if pinned:
        return
    trained = {path: other for other, path in current.save_folders.items()}
    if folder in trained:
        raise ConfigError(
            f"{role} loads from {folder}, where {trained[folder]} saves: it would follow the trained weights. Load it "
            "from a checkpoint of its own, or pin it with --ckpt-step"
        )
    if not os.path.isfile(os.path.join(folder, TRACKER)):
        raise DamagedError(f"{role} loads from {folder}, which holds no {TRACKER}; Megatron would use random weights")
    current.frozen_sources[folder] = role


def _role_to_resume(current: Session, args: Any, called_with: dict[str, Any]) -> str | None:
    """The trained role whose first load this is; None for every other load.

    Later loads of a role are the script's own: RL code loads again with load=None and finetune=True.
    """
    if called_with.get("load_arg", "load") == "load":
        naming.settle(current, args)
    role = session.role_of(args, current.config)
    if role is None and current.resumes:
        raise ConfigError(
            "load_checkpoint was called and get_args() names no role; before it, call set_args() with what "
            "megatron_resume.role_args(role, args) gave, also for reference and reward"
        )
    if role in FROZEN or role in current.loaded or called_with.get("load_arg", "load") != "load":
        return None
    return role


def _load(
    current: Session, resume: Resume, role: str, args: Any, called_with: dict[str, Any], load: Callable[[], Any]
) -> Any:
    changed = differing(current.overrides(role), args)
    if changed.get("load") and args.load and session.resolved(args.load) == str(resume.point.directories[role]):
        del changed["load"]  # the same folder by another name, as ChatLearn's trainers set it
    if changed:
        name, (wanted, found) = next(iter(changed.items()))
        raise ConfigError(
            f"{role} continues from {resume.point.name}, which needs args.{name} = {wanted!r}, "
            f"but it is {found!r} now; remove the code that changes it after role_args() or argument parsing"
        )
    _check_files(resume, role)
    non_persistent.tell_of_newer(resume, role, args)
    whole = whole_loads.checked(current, resume, role, args, called_with)
    with non_persistent.left_out(args), marks.loading(resume.point.name), whole:
        result = load()
    _check_files(resume, role)
    _audit(current, resume, role, args, result, called_with.get("opt_param_scheduler"))
    if not current.loaded and not current.evaluates:
        curves.continue_after(resume.point.iteration)
    current.loaded[role] = resume.point.iteration
    return result


def _check_files(resume: Resume, role: str) -> None:
    if ranks.rank() != 0:
        return
    folder = resume.point.directories[role] / model_folder(resume.point.iteration)
    receipt = resume.point.receipts[role]
    problem = problem_with_files(folder, receipt.files, digests_of(resume.point.path.parent, receipt))
    if problem:
        raise DamagedError(f"{role} changed while it was loaded: {problem}")


def _audit(current: Session, resume: Resume, role: str, args: Any, result: Any, scheduler: Any) -> None:
    """Compare what Megatron loaded with what the receipt says was saved, as far as it says so."""
    receipt = resume.point.receipts[role]
    found = {
        "iteration": result[0],
        "consumed_train_samples": int(getattr(args, "consumed_train_samples", 0)),
        "scheduler_steps": saving.scheduler_steps(scheduler),
    }
    if current.evaluates:  # without a scheduler
        del found["scheduler_steps"]
    saved = {name: value for name in found if (value := getattr(receipt, name)) is not UNSET}
    if _is_schedule_set_by_samples(args, saved, found):
        if ranks.rank() == 0:
            steps, samples = saved["scheduler_steps"], found["scheduler_steps"]
            logger.warning(
                "%s: its learning rate schedule was at sample %s and is set to %s, since this Megatron counts skipped "
                "steps, too, with --override-opt_param-scheduler",
                role,
                steps,
                samples,
            )
        saved["scheduler_steps"] = found["scheduler_steps"]
    if any(found[name] != value for name, value in saved.items()):
        raise DamagedError(f"{role} was saved with {saved}, but Megatron loaded {found} from {args.load}")
    unknown = {name: value for name, value in found.items() if name not in saved}
    if unknown and ranks.rank() == 0:
        logger.warning("%s: Megatron loaded %s, of which %s says nothing", role, unknown, resume.point.name)


def _is_schedule_set_by_samples(args: Any, saved: dict[str, Any], found: dict[str, Any]) -> bool:
    """Whether Megatron has set the schedule to the consumed samples, as from 0.20 on it does where it overrides it.

    The schedule of a run that skipped steps lies behind them.
    """
    if not getattr(args, "override_opt_param_scheduler", False) or not isinstance(saved.get("scheduler_steps"), int):
        return False
    restored = found.get("scheduler_steps")
    return bool(saved["scheduler_steps"] < restored == found["consumed_train_samples"]) if restored else False


def _loaded_otherwise(current: Session, args: Any, result: Any) -> None:
    role = session.role_of(args, current.config)
    if role in current.config.trained_roles and role not in current.loaded and not current.resumes:
        assert role is not None
        adoption.loaded(current, role, args, int(result[0]))
        current.loaded[role] = int(result[0])
