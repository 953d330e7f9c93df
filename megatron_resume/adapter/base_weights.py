"""What a script loads of its own on a resumed start: the model that training began from, not the resume point.

Megatron's RL (0.15 and later) loads its reference into the model of policy and puts policy back: after the resume
point it calls load_checkpoint with `args.load` None, so that --pretrained-checkpoint counts, and then once more.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import ConfigError
from . import session
from .session import Session

_CHOOSE_THE_BASE = ("pretrained_checkpoint", "ckpt_step", "exit_on_missing_checkpoint")


def check(current: Session, args: Any, called_with: dict[str, Any]) -> None:
    """Raises ConfigError where this load would leave trained weights for what training began from."""
    given = _given(current, args, called_with)
    if given is None:
        return
    base = given["pretrained_checkpoint"]
    if not base:
        raise ConfigError(
            "load_checkpoint was called with args.load = None, as Megatron's RL loads its reference, and there is no "
            "--pretrained-checkpoint: the reference would be the weights of the resume point; "
            "add --pretrained-checkpoint DIR"
        )
    trained = {path: role for role, path in current.save_folders.items()}
    role = trained.get(session.resolved(str(base)))
    if role:
        raise ConfigError(
            f"--pretrained-checkpoint is {base}, where {role} saves: what is loaded from there would follow the "
            "trained weights; give it a folder of its own"
        )


@contextmanager
def as_given(current: Session, args: Any, called_with: dict[str, Any]) -> Iterator[None]:
    """Meanwhile the arguments that choose the base are as the command gave them, where this load is meant for it."""
    given = _given(current, args, called_with) or {}
    ours = {name: getattr(args, name, None) for name in given}
    vars(args).update(given)
    try:
        yield
    finally:
        vars(args).update(ours)


def _given(current: Session, args: Any, called_with: dict[str, Any]) -> dict[str, object] | None:
    """The arguments that choose the base, as they were before a resume changed them; None for every other load."""
    given = current.given.get(session.role_of(args, current.config) or "")
    load_arg = called_with.get("load_arg", "load")
    is_of_the_base = load_arg == "pretrained_checkpoint" or (load_arg == "load" and args.load is None)
    return {name: given[name] for name in _CHOOSE_THE_BASE} if given and is_of_the_base else None
