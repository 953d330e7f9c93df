"""A role's load brings all that its model and optimizer ask for, as it was saved, or the start is refused."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from msgspec import UNSET

from ..checkpoint import contents, torch_metadata
from ..checkpoint.contents import Contents
from ..checkpoint.layout import model_folder
from ..errors import DamagedError, MismatchError
from ..resume.choose import Resume
from . import pattern, ranks, serialization, state_dicts
from .session import Session
from .state_dicts import LookedAt

logger = logging.getLogger("megatron_resume")


@contextmanager
def checked(current: Session, resume: Resume, role: str, args: Any, called_with: dict[str, Any]) -> Iterator[None]:
    """Look at what Megatron loads of `role` inside the `with` block, before and after.

    Raises:
        MismatchError: Model or optimizer ask for what was not saved. Nothing was read, and the attempt is withdrawn.
        DamagedError: Part of what was saved did not arrive.
    """
    model, optimizer = called_with.get("ddp_model"), called_with.get("optimizer")
    folder = model_folder(resume.point.iteration)
    was_seen = False

    def prepare(look: Callable[[], LookedAt]) -> None:
        nonlocal was_seen
        was_seen = True
        _prepare(current, resume, role, args, state_dicts.looked_at(look))

    def of_the_model(state_dict: Any, checkpoint_dir: Any) -> None:
        if os.path.basename(os.path.normpath(str(checkpoint_dir))) == folder:  # not what was saved beside the model
            prepare(lambda: state_dicts.of_sharded(state_dict))

    if resume.point.receipts[role].format == "torch":
        prepare(lambda: state_dicts.of_this_rank(model, optimizer))
    with serialization.before("load", of_the_model):
        yield
    if not was_seen and ranks.rank() == 0:
        logger.warning(
            "%s: nobody saw what was loaded from %s: Megatron's dist_checkpointing.load was not called, so it is not "
            "known whether all of it arrived",
            role,
            resume.point.name,
        )
    left = ranks.first_of_all(contents.listed(pattern.left_in(state_dicts.in_use(model, optimizer))))
    if left:
        raise DamagedError(
            f"Megatron's load_checkpoint did not bring all of {role} from {resume.point.name}: {left} would be left as "
            "before it. Something replaces Megatron's code that loads, or a file there lacks what was saved"
        )


def _prepare(current: Session, resume: Resume, role: str, args: Any, asked: LookedAt | None) -> None:
    """Compare what is asked for, and mark what is to be brought. Call on every rank."""
    receipt = resume.point.receipts[role]
    is_listed = receipt.tensors is not UNSET
    held = receipt.tensors if receipt.tensors is not UNSET else _by_metadata(resume, role)
    if held is None:
        return
    wanted = state_dicts.spelled_out(asked.entries) if asked else None
    problem = _problem(current, wanted, held)
    if problem and is_listed:  # what the first save of its attempt held; this one may hold more
        held = contents.merge([held, _by_metadata(resume, role) or {}])
        problem = _problem(current, wanted, held)
    if problem:
        _refuse(current, resume, role, args, problem)
    if asked is not None and wanted is not None:
        whole = contents.same_in_both(wanted, held)
        pattern.fill(tensor for name, tensor in asked.tensors if name in whole)


def _by_metadata(resume: Resume, role: str) -> Contents | None:
    """What was saved, as the checkpoint's own metadata say; None if they do not. Call on every rank."""
    if resume.point.receipts[role].format != "torch_dist":
        return None
    said = ranks.first_of_all(_of_metadata(resume, role) if ranks.rank() == 0 else "")
    return msgspec.json.decode(said, type=Contents) if said else None


def _of_metadata(resume: Resume, role: str) -> str:
    """As JSON, for the other ranks: thousands need not read the same file. Empty if it cannot be read."""
    folder = resume.point.directories[role] / model_folder(resume.point.iteration)
    try:
        return msgspec.json.encode(torch_metadata.contents_of(folder)).decode()
    except DamagedError as error:  # Megatron will say what it makes of them
        logger.warning("%s: what the model asks for is not compared with what was saved: %s", role, error)
        return ""


def _problem(current: Session, asked: Contents | None, held: Contents) -> str:
    """What is asked for in vain on any rank; empty if nothing. Call on every rank."""
    problem = ranks.first_of_all(contents.listed(contents.unanswered(asked or {}, held)))
    without_optimizer = ranks.everywhere(asked is not None and not contents.has_tensors_of_optimizer(asked))
    if not problem and without_optimizer and not current.evaluates and contents.has_tensors_of_optimizer(held):
        problem = "the state of its optimizer was saved, and nobody asks for it: give load_checkpoint the optimizer"
    return problem


def _refuse(current: Session, resume: Resume, role: str, args: Any, problem: str) -> None:
    if _may_lack(args):
        if ranks.rank() == 0:
            logger.warning(
                "%s: %s; --dist-ckpt-strictness %s lets that begin anew", role, problem, args.dist_ckpt_strictness
            )
        return
    current.step_back()
    ranks.barrier()  # a launcher ends the others as soon as one has left
    raise MismatchError(
        f"start refused: {role} cannot be loaded from {resume.point.name}: {problem}. Nothing was loaded; "
        "start with the options of model, optimizer and parallel sizes that it was saved with"
    )


def _may_lack(args: Any) -> bool:
    """Whether the job said that what a checkpoint lacks may begin anew."""
    return getattr(args, "dist_ckpt_strictness", None) in ("log_all", "ignore_all")
