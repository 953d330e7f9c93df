"""A trained role whose engine, and not the command line, says what there is to do, as in ChatLearn's trainers."""

from typing import Any

from ..config import ResumeConfig
from . import arguments, configuration, session
from .ending import truthful_end


def begin_role(config: ResumeConfig, name: str) -> None:
    """Begin or join the attempt with `config.resume_role`, and let Megatron's arguments continue from its point.

    Call on every rank, when Megatron is initialised and before the model is built.

    Args:
        name: of this start, the same in all processes of the engine.

    Raises:
        SystemExit: The start is refused; the message says why.
    """
    args: Any = _megatron_args()
    with truthful_end():
        role = config.resume_role
        assert role is not None
        current = session.begin_told(config, name)
        current.share_decision()
        configuration.compare(current, role, args)
        current.open()
        if current.resumes is not None:
            arguments.override(current, role, args)


def _megatron_args() -> Any:
    from megatron.training import get_args

    return get_args()
