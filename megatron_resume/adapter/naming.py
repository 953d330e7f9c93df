"""The roles of a process whose command names none and whose folder holds no points: the script's calls name them."""

import os
from typing import Any

import msgspec

from ..checkpoint import leases
from ..checkpoint.attempts import amend_start
from ..checkpoint.folder import read_start
from ..errors import ConfigError, MismatchError
from ..resume import role_set
from ..roles import FROZEN, TRAINED, canonical
from . import adoption, ranks
from .session import Session


def name(current: Session, role: str) -> None:
    """Let `role` be one that the job trains: until it trains or saves. Call on every rank.

    Raises:
        ConfigError: The command, the resume points, or what was trained already, say otherwise.
    """
    roles = current.config.trained_roles
    if role in roles:
        return
    if not _may_name(current):
        raise ConfigError(
            f"{role} is not among the trained roles ({', '.join(roles)}); call role_args for each role before the "
            f"first train step, or type --trained-roles {','.join(r for r in TRAINED if r in {*roles, role})}"
            + ("; a job that has points of fewer roles must begin anew, with --start-over" if current.resumes else "")
        )
    named = tuple(other for other in TRAINED if other in {*roles, role})
    current.config = msgspec.structs.replace(current.config, trained_roles=named)
    if current.lease_keeper is not None:  # the load of another role began the attempt
        current.lease_keeper.take(role)
        start = read_start(current.root, current.attempt)
        amend_start(current.root, msgspec.structs.replace(start, config=role_set.recorded(current.config)))


def settle(current: Session, args: Any) -> None:
    """At the first load, train step or save: a process that named no role holds one model. Call on every rank.

    Raises:
        ResumeError: What it saves could never be resumed.
    """
    role = only_role(current, args)
    if role is None:
        return
    current.config = msgspec.structs.replace(current.config, trained_roles=(role,), resume_role=role)
    current.role_of_command = role
    current.hold(role, args)
    adoption.check_save_folder(current, role, args)


def only_role(current: Session, args: Any) -> str | None:
    """The trained role of a process that named none, should it hold one model; None where roles are known."""
    given = getattr(args, "resume_role", None)
    role = canonical(given) if given else TRAINED[0]
    return None if current.config.trained_roles or role in FROZEN else role


def check_begun(current: Session, role: str, iteration: int) -> str | None:
    """Before a save that the other role's is to complete: what to warn of, where no process ever began that one.

    Call on every rank.

    Raises:
        MismatchError: It is the second such save.
    """
    roles = current.config.trained_roles
    if set(roles) <= current.save_folders.keys():
        return None
    elsewhere = [other for other in roles if other not in current.save_folders]
    is_one_absent = ranks.rank() == 0 and not all(_is_held(current, other) for other in elsewhere)
    if not ranks.from_rank_0([int(is_one_absent)])[0]:
        return None
    missing = ", ".join(elsewhere)
    reason = (
        f"no process began {missing} in attempt {current.attempt}, so no save of {role} can be committed. A job of "
        f"{role} alone: --trained-roles {role}. Else start {missing}, too, with --resume-role {missing} "
        f"--trained-roles {','.join(roles)}, or let the script call role_args for it"
    )
    saved_before = current.saved_at.get(role, (iteration, 0))[0]
    if saved_before != iteration:
        raise MismatchError(f"{role} was saved at iteration {saved_before} and is to be saved at {iteration}: {reason}")
    return reason


def _may_name(current: Session) -> bool:
    return (
        current.role_of_command is None
        and current.resumes is None
        and not current.config.resume_role
        and not current.steps
        and not current.saves
    )


def _is_held(current: Session, role: str) -> bool:
    """Whether another process holds the role in this attempt, or did."""
    found = leases.place(current.root, current.attempt, role)
    if not isinstance(found, leases.Lease):
        return found is not None
    return (found.holder.host, found.holder.pid) != (os.uname().nodename, os.getpid())
