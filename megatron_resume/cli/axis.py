"""Axes: where values lie, and which of them are written."""

import math
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import NamedTuple

_TIMES_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)


class Axis(NamedTuple):
    """A straight line from `low` at `first` to `high` at `last`."""

    low: float
    high: float
    first: float
    last: float

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.first + share * (self.last - self.first)


def axis(low: float, high: float, first: float, last: float) -> Axis:
    """From the least to the largest value; what is as good as one value gets some room."""
    size = max(1.0, abs(low))
    return Axis(low, high if high - low > 1e-9 * size else low + size, first, last)


def numbers(axis: Axis, most: int = 6) -> Iterator[tuple[float, str]]:
    """Round values on the axis, as they are written."""
    rough = (axis.high - axis.low) / most
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * size for factor in (1, 2, 5, 10) if factor * size >= rough)
    step = max(step, 1) if rough >= 1 else step
    digits = max(0, -math.floor(math.log10(step)))
    for count in range(math.ceil(axis.low / step), math.floor(axis.high / step) + 1):
        yield count * step, f"{count * step:,.{digits}f}"


def times(axis: Axis, most: int = 7) -> Iterator[tuple[float, str]]:
    """Round moments on the axis, UTC, as they are written."""
    rough = (axis.high - axis.low) / most
    days = math.ceil(rough / 86_400) * 86_400
    step = next((size for size in _TIMES_S if size >= rough), days)
    form = "%H:%M:%S" if step < 60 else "%H:%M" if step < 86_400 else "%b %d" if step < 200 * 86_400 else "%Y"
    day = ""
    for count in range(math.ceil(axis.low / step), math.floor(axis.high / step) + 1):
        moment = datetime.fromtimestamp(count * step, timezone.utc)
        new_day = f"{moment:%b %d} " if f"{moment:%b %d}" != day.strip() and step < 86_400 else ""
        day = new_day or day
        yield count * step, f"{new_day}{moment:{form}}"
