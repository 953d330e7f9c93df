"""Whole numbers that a caller gave: checked by name, and refused with what to give instead."""

import operator

from ..errors import ConfigError

MAX_NUMBER = 1 << 53  # of samples: what every reader of JSON can tell apart


def whole(name: str, value: object, *, least: int, below: int = MAX_NUMBER) -> int:
    """`value` as int; numpy's whole numbers count, and True and 1.0 do not.

    Raises:
        ConfigError: It is no whole number from `least` to before `below`.
    """
    if type(value) is int and least <= value < below:
        return value  # asked at every batch
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # raises for what is not
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r}, a {type(value).__name__}; give a whole number")
    if not least <= number < below:
        raise ConfigError(f"{name} is {number:,}; give a whole number from {least:,} to {below - 1:,}")
    return number
