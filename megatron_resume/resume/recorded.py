"""What a receipt records of a role's arguments: plain values, and nothing that looks secret. Pure."""

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


def recorded(args: Mapping[str, object]) -> Arguments:
    """`args` for a receipt, without objects that another process could not compare with its own."""
    return _recorded(args, Exception)  # objects of a script's own raise what they like; some hold themselves


def _recorded(args: Mapping[str, object], unfit: type[Exception]) -> Arguments:
    """What can be had of `args`; a value that raises `unfit` is left out."""
    found: Arguments = {}
    for name, value in args.items():
        if name.startswith("_") or (isinstance(value, str | list | tuple) and re.search(_SECRET_NAME, name)):
            continue
        try:
            found[name] = _plain(value)
        except unfit:
            continue
    return found


def _plain(value: object) -> Any:
    """`value` as JSON has it; TypeError where that says nothing about it."""
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
        if re.search(_SECRET_VALUE, text):
            raise TypeError
        return text
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return _recorded({str(key): item for key, item in value.items()}, TypeError)
    raise TypeError
