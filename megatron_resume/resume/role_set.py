"""Which roles a job trains: as the command names them, else as its resume points hold them. Pure."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..checkpoint.records import Request, Start
from ..roles import TRAINED

if TYPE_CHECKING:
    from ..config import ResumeConfig

NAMED_BY = "roles_named_by"  # in `start.json`, where the script named the only role
CALLS = "role_args"


def roles_of(start: Start) -> tuple[str, ...]:
    """The trained roles of an attempt; both where it does not say."""
    roles = start.config.get("trained_roles")
    known = tuple(role for role in TRAINED if role in roles) if isinstance(roles, list) else ()
    return known or TRAINED


def recorded(config: "ResumeConfig") -> dict[str, Any]:
    """What `start.json` keeps of `config`, whose roles are known by now."""
    is_named_by_calls = config.resume_role is None and len(config.trained_roles) == 1
    kept: dict[str, Any] = msgspec.to_builtins(config)
    return {**kept, NAMED_BY: CALLS} if is_named_by_calls else kept


def with_roles_of(start: Start | None, config: "ResumeConfig") -> "ResumeConfig":
    """`config`, which names no roles, with those of the attempt that it continues; as it is without one.

    One role is the whole process's, whose arguments are then Megatron's own, unless the script named it by `role_args`.
    """
    if start is None:
        return config
    roles = roles_of(start)
    is_the_process = len(roles) == 1 and NAMED_BY not in start.config
    changed: ResumeConfig = msgspec.structs.replace(
        config, trained_roles=roles, resume_role=roles[0] if is_the_process else config.resume_role
    )
    return changed


def are_of(start: Start, roles: Collection[str]) -> bool:
    """Whether `roles`, as far as they are known, are those of the attempt."""
    return not roles or set(roles) == set(roles_of(start))


def refused_change(start: Start | None, config: "ResumeConfig", request: Request) -> str | None:
    """Why a start may not continue the attempt: it trains other roles, so that what is committed was of no use to it.

    A point that was named on the command line may be continued by some of its roles.
    """
    if start is None or request.iteration is not None or request.attempt is not None:
        return None
    if are_of(start, config.trained_roles):
        return None
    ours, theirs = ",".join(config.trained_roles), ",".join(roles_of(start))
    return (
        f"the resume points of this job hold {theirs} (attempt {start.attempt}), and this start would train {ours}; "
        f"to continue, type {_command(start)}; to begin a job of {ours}, type --trained-roles {ours} --start-over, or "
        "name another --data-checkpoint-path"
    )


def refused_beside(start: Start, config: "ResumeConfig", root: Path) -> str:
    """Why a start may not begin while the attempt lives."""
    ours, theirs = config.trained_roles, roles_of(start)
    both = ",".join(role for role in TRAINED if role in {*ours, *theirs})
    return (
        f"start refused: attempt {start.attempt} of {root} runs and trains {','.join(theirs)}, and this start would "
        f"train {','.join(ours)}. For two jobs that share the folder, type in one --resume-role policy "
        f"--trained-roles {both}, and in the other --resume-role value --trained-roles {both}; a job of "
        f"{','.join(ours)} alone needs another --data-checkpoint-path"
    )


def _command(start: Start) -> str:
    """What names the roles of the attempt."""
    theirs = roles_of(start)
    named = f"--trained-roles {','.join(theirs)}"
    if len(theirs) == 1 or not start.config.get("resume_role"):
        return named
    return " and ".join(f"--resume-role {role} {named}" for role in theirs) + ", each for the job of its role"
