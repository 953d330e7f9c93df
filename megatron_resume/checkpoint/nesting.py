"""How deep plain values lie in each other."""

from collections.abc import Iterable
from typing import Any


def is_deeper(value: Any, limit: int) -> bool:
    """Whether lists and dicts are nested more than `limit` deep. Level by level: a chain of calls could be too long."""
    level = _containers([value])
    for _ in range(limit):
        level = [inner for one in level for inner in _containers(one.values() if isinstance(one, dict) else one)]
        if not level:
            return False
    return bool(level)


def _containers(values: Iterable[Any]) -> list[dict[str, Any] | list[Any]]:
    return [value for value in values if isinstance(value, dict | list)]
