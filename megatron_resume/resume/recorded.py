"""Arguments as plain values, which two processes can compare, and which of them look secret. Pure."""

import math
import re
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

Arguments = dict[str, Any]  # name -> value as JSON has it

# Compiled at their first use: the import of this package is to take no time.
_SECRET_NAME = r"(?i)(^|_)(key|token|password|secret|credentials?)$|^wandb_|api_?key"
_SECRET_VALUE = r"://[^/\s]*@"  # a URL with a password in it
_INT_LIMIT = 1 << 63  # beyond it not every reader of JSON can go


def plain(args: Mapping[str, object]) -> Arguments:
    """`args` without objects that another process could not compare with its own. They may hold secrets: not to be
    stored or shown before `sealed` has gone over them."""
    return _plain_of(
        args, Exception, secrets=True
    )  # objects of a script's own raise what they like; some hold themselves


def recorded(args: Mapping[str, object]) -> Arguments:
    """`args` as releases before digests stored them: what looked secret was left out, and any other value was kept."""
    return _plain_of(args, Exception, secrets=False)


def _plain_of(args: Mapping[str, object], unfit: type[Exception], *, secrets: bool) -> Arguments:
    """What can be had of `args`; a value that raises `unfit` is left out, and without `secrets` what looks like one."""
    found: Arguments = {}
    for name, value in args.items():
        if name.startswith("_") or (not secrets and _is_named_secret(name, value)):
            continue
        try:
            found[name] = _plain(value, secrets=secrets)
        except unfit:
            continue
    return found


def _is_named_secret(name: str, value: object) -> bool:
    return isinstance(value, str | list | tuple) and re.search(_SECRET_NAME, name) is not None


def _plain(value: object, *, secrets: bool) -> Any:
    """`value` as JSON has it; TypeError if that says nothing about it."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, int):
        return int(value) if -_INT_LIMIT <= value < _INT_LIMIT else str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, str | PurePath) or type(value).__name__ == "dtype":
        text = str(value).encode(errors="replace").decode()  # names of files may hold any bytes
        if not secrets and re.search(_SECRET_VALUE, text):
            raise TypeError
        return text
    if isinstance(value, list | tuple):
        return [_plain(item, secrets=secrets) for item in value]
    if isinstance(value, Mapping):
        return _plain_of({str(key): item for key, item in value.items()}, TypeError, secrets=secrets)
    raise TypeError
