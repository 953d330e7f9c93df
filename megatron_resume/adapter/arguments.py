"""The hooks on Megatron's arguments: our flags, and a resumed role's changes before anything reads them."""

import argparse
import copy
import sys
from typing import Any

from ..config import KEYS, add_flags
from ..errors import ConfigError, RejoinError, ResumeError
from ..hooks import AnyFunction
from ..resume.base_options import flag
from ..resume.choose import Resume
from ..resume.overrides import differing
from ..roles import FROZEN, canonical
from . import adoption, configuration, early_args, evaluation, naming, ranks, session
from .ending import truthful_end
from .session import Session

# What else than its own option sets an argument that a resume needs otherwise: Megatron's validation.
_SETS = {
    "no_load_optim": ("moe_use_upcycling", "skip_train"),
    "no_load_rng": ("moe_use_upcycling",),
}


def wrap_parse_args(original: AnyFunction) -> AnyFunction:
    """Without side effects: Megatron parses more than once, and in helper processes too."""

    def parse_args(extra_args_provider: Any = None, ignore_unknown_args: bool = False, **kwargs: Any) -> Any:
        def with_ours(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
            if extra_args_provider is not None:
                parser = extra_args_provider(parser)
            _escape_percent_signs(parser)
            return add_flags(parser)

        with truthful_end():
            args = original(with_ours, ignore_unknown_args, **kwargs)
        if not hasattr(args, KEYS[0]):  # Megatron's --yaml-cfg drops what was on the command line
            ours, _ = add_flags(argparse.ArgumentParser(add_help=False, allow_abbrev=False)).parse_known_args(
                sys.argv[1:]
            )
            for name, value in vars(ours).items():
                setattr(args, name, value)
        return args

    return parse_args


def _escape_percent_signs(parser: argparse.ArgumentParser) -> None:
    """Core 0.19 has a help text with "10%)", on which its own `--help` ends in a ValueError."""
    for action in parser._actions:
        try:
            _ = action.help and action.help % {**vars(action), "prog": parser.prog}
        except (ValueError, TypeError, KeyError):
            action.help = str(action.help).replace("%", "%%")


def wrap_load_args_from_checkpoint(original: AnyFunction) -> AnyFunction:
    """`use_checkpoint_args` reads `load` before validation: a resumed role's must already stand there."""

    def load_args_from_checkpoint(args: Any, *rest: Any, **kwargs: Any) -> Any:
        with truthful_end():
            current = _begin(args)
            if current is not None:
                with early_args.found_where_it_lies(current, args):
                    return original(args, *rest, **kwargs)
        return original(args, *rest, **kwargs)

    return load_args_from_checkpoint


def wrap_validate(original: AnyFunction) -> AnyFunction:
    """The last place before Megatron copies its arguments; for `validate_args` and `validate_yaml`."""

    def validate_args(args: Any, *rest: Any, **kwargs: Any) -> Any:
        with truthful_end():
            current = _begin(args)
        result = original(args, *rest, **kwargs)
        validated = result if result is not None else args  # validate_yaml returns new ones
        with truthful_end():
            if current is not None:
                _begin_with_one_role(current, validated)
        return result

    return validate_args


def wrap_initialize_megatron(original: AnyFunction) -> AnyFunction:
    def initialize_megatron(*args: Any, **kwargs: Any) -> Any:
        with truthful_end():
            _check_first_time()
        result = original(*args, **kwargs)
        current = session.current()
        if current is not None:
            with truthful_end():
                current.share_decision()
        return result

    return initialize_megatron


def _check_first_time() -> None:
    """Raises RejoinError in a process that trains already: what hooks know of it is of its first beginning."""
    current = session.current()
    if current is not None and current.is_open:
        raise RejoinError(
            f"Megatron is initialized again in a process whose attempt {current.attempt} has begun, as by a restart in "
            "process after a fault; only a new process can resume, so this one ends and its launcher starts it again"
        )


def role_args(role: str, args: Any) -> Any:
    """A copy of Megatron's `args` for `role`, for a process that holds several roles.

    On a resumed start, policy and value get what makes Megatron continue from the resume point;
    reference and reward keep every argument. Give the copy to Megatron's `set_args` before building,
    loading, training or saving the role. `args` themselves stay as they are.

    Args:
        role: policy, value, reference or reward, or an alias of one.
        args: parsed arguments with all that is this role's own, such as its `save` and `lr`, and with `load` as
            on a fresh start. What changed in them since the resume point was saved is shown, or refused.

    Raises:
        SystemExit: 78 where the role could not be resumed as the arguments are; the message says why.
    """
    with truthful_end():
        role = canonical(role)
        ours = copy.copy(args)
        ours.resume_role = role
        current = _session_of(args)
        if current is None or role in FROZEN:
            return ours
        try:
            naming.name(current, role)
            if not current.loaded:
                adoption.check_save_folder(current, role, ours)
            current.hold(role, ours)
            configuration.compare(current, role, ours)
        except ResumeError:
            current.step_back()
            raise
        if current.resumes is not None:
            override(current, role, ours)
        return ours


def _session_of(args: Any) -> Session | None:
    return session.begin(args, evaluation.begin if evaluation.is_asked_for(args) else None)


def _begin(args: Any) -> Session | None:
    current = _session_of(args)
    if current is None:
        return None
    role = session.role_of(args, current.config)
    if not current.config.trained_roles:
        current.keep_models("a role", args)  # later than here Megatron would not see it
    if role in current.config.trained_roles and role is not None:
        current.hold(role, args)
        if current.resumes is not None:
            override(current, role, args)
    return current


def override(current: Session, role: str, args: Any) -> None:
    """Let `args` of `role` continue from the resume point."""
    overrides = current.overrides(role)
    current.given.setdefault(role, {name: getattr(args, name, None) for name in overrides})
    for name, value in overrides.items():
        setattr(args, name, value)


def _begin_with_one_role(current: Session, args: Any) -> None:
    """Begin the attempt, where that needs no other rank; those of several roles are yet to be told what rank 0 decided.

    Only when all else was checked, since it changes what is on disk; and no later, since the other ranks wait for it,
    and Megatron copies its arguments next.
    """
    role = session.role_of(args, current.config)
    if role not in current.config.trained_roles or role is None:
        return
    adoption.check_save_folder(current, role, args)
    if current.resumes is not None:
        _check_unchanged(current, current.resumes, role, args)
    configuration.compare(current, role, args)
    if ranks.rank() == 0 and not current.evaluates:
        current.open_on_rank_0()


def _check_unchanged(current: Session, resume: Resume, role: str, args: Any) -> None:
    changed = differing(current.overrides(role), args)
    if changed:
        name, (wanted, found) = next(iter(changed.items()))
        raise ConfigError(
            f"{role} continues from {resume.point.name}, which needs {name} = {wanted!r}, but "
            f"after validation it is {found!r}; drop {_set_by(name, args)}"
        )


def _set_by(name: str, args: Any) -> str:
    """The option that made Megatron change the argument `name` back."""
    options = [option for option in _SETS.get(name, ()) if getattr(args, option, None)]
    return (
        " and ".join(map(flag, options))
        if options
        else f"what sets it: an option, or a default of the script for {flag(name)}"
    )
