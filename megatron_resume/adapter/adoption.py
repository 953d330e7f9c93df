"""Megatron's checkpoints of a time before this job had resume points: adopted as the command names them, or refused.

A fresh start that nobody asked for may load them with `--load`: all trained roles at one iteration, with Megatron's
counters. It trains over no model that it does not load.
"""

import logging
from pathlib import Path
from typing import Any

from ..checkpoint import adopted, attempts, leftovers
from ..checkpoint.adopted import Adopted, iteration_in
from ..errors import ConfigError, MismatchError, ResumeError
from . import ranks, session
from .session import Session

logger = logging.getLogger("megatron_resume")

HOW = "docs/adopt.md"


def check_save_folder(current: Session, role: str, args: Any) -> None:
    """Before anything is opened: whether a fresh start of `role` would train over somebody's model. On rank 0.

    Raises:
        MismatchError: It would; or it lacks what an attempt before it had adopted.
    """
    if ranks.rank() != 0 or not current.may_adopt or not getattr(args, "save", None):
        return
    if _expected(current, args):
        return
    root, save = current.root, Path(session.resolved(args.save))
    _check_still_there(root, role)
    held = iteration_in(save)
    if not held:
        return
    ours = leftovers.iterations_of_job(root)
    own = [iteration for iteration in leftovers.saved_iterations(save) if iteration in ours and iteration <= held]
    if held not in ours:
        raise MismatchError(
            f"start refused: {role} would train over iteration {held} in its --save {save}, of which {root} holds no "
            f"resume point. To continue from it: --load {save} without --finetune ({HOW}). To begin anew: another "
            "--save. If there should be resume points, see whether the storage of both folders is mounted"
        )
    if len(own) >= current.config.max_uncommitted_saves:  # more than a death costs
        raise MismatchError(
            f"start refused: {role} would begin anew beside {len(own)} saves in {save}, up to iteration {held}, which "
            f"earlier attempts never committed to a resume point. To continue from iteration {held}: --load {save} "
            f"and another --data-checkpoint-path ({HOW}). To begin anew: --start-over, which moves them aside"
        )


def check_before_load(current: Session, role: str, args: Any) -> None:
    """Whether what Megatron would load for `role` can be adopted. Call on every rank, before the attempt begins.

    Raises:
        ResumeError: It cannot; an attempt of this process that did nothing yet is taken back.
    """
    if not current.may_adopt:
        return
    try:
        check_save_folder(current, role, args)
        iteration = ranks.from_rank_0([_expected(current, args) if ranks.rank() == 0 else 0])[0]
        if iteration:
            check_position(current, f"{role} continues from iteration {iteration} of {args.load}")
            _check_one_iteration(current, role, iteration, args.load)
    except ResumeError:
        current.step_back()
        raise


def loaded(current: Session, role: str, args: Any, iteration: int) -> None:
    """Megatron loaded `role` on a fresh start. Call on every rank, once for each role."""
    if not current.may_adopt or iteration == 0:
        return
    check_position(current, f"{role} continues from iteration {iteration} of {args.load}")
    _check_one_iteration(current, role, iteration, args.load)
    current.iteration = iteration
    if ranks.rank() != 0 or not current.attempt:
        return
    folder = session.resolved(args.load)
    if not getattr(args, "non_persistent_ckpt_type", None) or iteration <= _expected(current, args):
        # A non-persistent one may be gone by the next start, and does not lie there to be trained over.
        adopted.write(current.root, current.attempt, Adopted(role=role, iteration=iteration, directory=folder))
    logger.info(
        "attempt %d adopts iteration %d of %s from %s: it trains on from there, and its first save makes the first "
        "resume point",
        current.attempt,
        iteration,
        role,
        folder,
    )
    unknown = [name for name in current.tracked.objects if name not in current.tracked.orders]
    if unknown:
        logger.warning("nothing was saved of %s, which begins as the script made it", ", ".join(map(repr, unknown)))


def check_position(current: Session, what: str = "") -> None:
    """Raises ConfigError where a loop of episodes adopts a model and did not say how far its prompts were."""
    if not what and not current.adopted:
        return
    if current.episode or current.consumed_samples or not (current.counts_episodes or current.tracked.objects):
        return
    names = ", ".join(map(repr, current.tracked.objects)) or "the episodes"
    raise ConfigError(
        f"start refused: {what or 'the models are adopted'}, and no resume point tells how far the prompts were: "
        f"{names} would begin at the first one again. Say it before models are loaded and a prompt is drawn, if not "
        "progress().resume_training: megatron_resume.advance(samples=..., episodes=...), all that were used until "
        f"that iteration ({HOW})"
    )


def _expected(current: Session, args: Any) -> int:
    """The iteration that Megatron would continue from; 0 where it loads nothing, or weights to start from."""
    if not getattr(args, "load", None) or getattr(args, "finetune", False):
        return 0
    load = Path(session.resolved(args.load))
    found = iteration_in(load)
    if found and getattr(args, "ckpt_step", None):
        return int(args.ckpt_step)
    if load != Path(session.resolved(args.save)):
        return found
    ours = leftovers.iterations_of_job(current.root)  # which no start loads without a commit
    if found in ours:
        return max((iteration for iteration in leftovers.saved_iterations(load) if iteration not in ours), default=0)
    return found


def _check_still_there(root: Path, role: str) -> None:
    for attempt in sorted(attempts.started(root), reverse=True):
        before = adopted.of_attempt(root, attempt).get(role)
        if before is None:
            continue
        raise MismatchError(
            f"start refused: attempt {attempt} adopted iteration {before.iteration} of {role} from {before.directory} "
            "and committed nothing since, and this start would load no such thing. Give the same --load, and see "
            "whether its storage is mounted; or begin anew with --start-over"
        )


def _check_one_iteration(current: Session, role: str, iteration: int, load: str) -> None:
    """Raises MismatchError where another role is at another iteration; what lies where is in the message."""
    others = {other: (at, "") for other, at in current.loaded.items()}
    if current.attempt:
        others |= {r: (one.iteration, f" in {one.directory}") for r, one in _recorded(current).items()}
    for other, (at, where) in others.items():
        if other != role and at != iteration:
            raise MismatchError(
                f"start refused: {role} is at iteration {iteration} in {load}, and {other} at {at}{where}: no resume "
                "point can hold both. Load all trained roles of one iteration (--ckpt-step names one), or, if they are "
                "only to start from, with --finetune"
            )


def _recorded(current: Session) -> dict[str, Adopted]:
    return adopted.of_attempt(current.root, current.attempt)
