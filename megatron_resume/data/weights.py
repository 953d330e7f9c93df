"""Weights of datasets as whole slots of a cycle."""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

MAX_CYCLE = 1 << 16  # slots: a table of this size is looked up
_NOTICEABLE = Fraction(1, 100)


def shares(weights: Sequence[float], sizes: Sequence[int]) -> list[Fraction]:
    """What each dataset is to get of all samples, exactly as the decimal numbers say; by size where none are given.

    Raises:
        ValueError: A weight is missing, superfluous, not above zero, or not finite.
    """
    if not weights:
        return _normal([Fraction(size) for size in sizes])
    if len(weights) != len(sizes):
        raise ValueError(f"{len(weights)} weights for {len(sizes)} datasets; give one for each, in the same order")
    for number, weight in enumerate(weights):
        if not (math.isfinite(weight) and weight > 0):
            raise ValueError(
                f"the weight of dataset {number} is {weight}; give a number above 0, or leave the dataset and its "
                "weight out"
            )
    return _normal([Fraction(repr(float(weight))) for weight in weights])  # 0.1 means a tenth, not its nearest float


def _normal(parts: Sequence[Fraction]) -> list[Fraction]:
    total = sum(parts)
    return [part / total for part in parts]


def slots_of(wanted: Sequence[Fraction]) -> tuple[int, ...]:
    """How many slots of a cycle each dataset gets, one at least.

    The cycle is the smallest in which the shares are exact, or of MAX_CYCLE slots by largest remainders.

    Raises:
        ValueError: There are more datasets than slots.
    """
    if len(wanted) > MAX_CYCLE:
        raise ValueError(f"{len(wanted):,} datasets; mix {MAX_CYCLE:,} at most")
    cycle = math.lcm(*(share.denominator for share in wanted))
    if cycle <= MAX_CYCLE:
        return tuple(int(share * cycle) for share in wanted)
    return _rounded(wanted, MAX_CYCLE)


def _rounded(wanted: Sequence[Fraction], cycle: int) -> tuple[int, ...]:
    """Largest remainders, after one slot for each of those that are due less than one."""
    small = {number for number, share in enumerate(wanted) if share * cycle < 1}
    while True:
        rest = sum(share for number, share in enumerate(wanted) if number not in small)
        free = cycle - len(small)
        due = [Fraction(1) if number in small else share / rest * free for number, share in enumerate(wanted)]
        smaller = {number for number, slots in enumerate(due) if slots < 1}
        if not smaller:
            break
        small |= smaller
    slots = [int(one) for one in due]
    by_remainder = sorted(range(len(due)), key=lambda number: (slots[number] - due[number], number))
    for number in by_remainder[: cycle - sum(slots)]:
        slots[number] += 1
    return tuple(slots)


def coarse(wanted: Sequence[Fraction], slots: Sequence[int]) -> Iterator[tuple[int, float, float]]:
    """The datasets whose share is more than 1% off in the cycle: (number, share wanted, share in the cycle)."""
    cycle = sum(slots)
    for number, (share, has) in enumerate(zip(wanted, slots, strict=True)):
        if abs(Fraction(has, cycle) - share) > _NOTICEABLE * share:
            yield number, float(share), has / cycle
