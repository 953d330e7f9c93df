"""What this process was given and no record may hold: by a name that is not on the list of what is stored."""

import os
import sys
from collections.abc import Iterator
from typing import Any

from ..resume.recorded import plain
from ..resume.sealed import is_open
from ..withheld import names_a_secret, of_environ, typed, without_secrets

_MEGATRON = "megatron.training.global_vars"
_MIN = 6  # characters of a value whose name does not say what it is


def message_of(error: BaseException) -> str:
    """What `error` says, for a record: without the secrets that this process knows."""
    try:
        text = str(error)
    except Exception as broken:  # of a script's own class
        return f"its message raises {type(broken).__name__}"
    try:
        known = set(_known())
    except Exception:  # whoever ends for another reason is not to end for this one
        return without_secrets(text, sys.argv)
    return without_secrets(text, known)


def _known() -> Iterator[str]:
    yield from of_environ(os.environ)
    for name, value in typed(sys.argv):
        yield from _secrets_in(name, value)
    args: Any = getattr(sys.modules.get(_MEGATRON), "_GLOBAL_ARGS", None)
    for name, value in plain(getattr(args, "__dict__", {})).items():
        yield from _secrets_in(name, value)


def _secrets_in(name: str, value: object) -> Iterator[str]:
    """The texts in `value` of argument `name`, as far as they are no paths, switches or everyday words."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _secrets_in(name if names_a_secret(name) else key, item)
    elif isinstance(value, list):
        for item in value:
            yield from _secrets_in(name, item)
    elif isinstance(value, int) and not isinstance(value, bool) and names_a_secret(name):
        yield str(value)
    elif isinstance(value, str) and not is_open(name, value) and (names_a_secret(name) or _looks_chosen(value)):
        yield value


def _looks_chosen(text: str) -> bool:
    """Whether it is neither a number, a path nor words."""
    return (
        len(text) >= _MIN
        and any(map(str.isdigit, text))
        and any(map(str.isalpha, text))
        and not text.startswith(("/", ".", "~"))
    )
