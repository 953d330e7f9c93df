"""Whether an order looks like chance: scores that are standard normal where it is. Pure functions of arrays.

Rows are those of consecutive positions unless told otherwise, and a sample of an order of `length` rows. Everything
here is two-sided: an order that is too even is no chance either.
"""

import math
from collections.abc import Callable, Iterable
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Scores = dict[str, float]

_LAGS = (1, 2, 3, 5, 16)


def scores_of_run(rows: Rows, length: int) -> Scores:
    """Of one run of positions: evenness, and how a row depends on those before it."""
    found = {
        "rows": _even(_binned(rows, length, 256), 256) if len(rows) < length / 8 else 0.0,
        "low bits": _even(rows & 255, 256) if len(rows) < length / 8 else 0.0,
        "repeated differences": _repeats(np.diff(rows) % length, length),
    }
    for lag in _LAGS:
        pairs = rows[: len(rows) // (2 * lag) * 2 * lag].reshape(-1, 2, lag)  # disjoint, so that they are independent
        found |= _named(f"lag {lag}", scores_of_pairs(pairs[:, 0].ravel(), pairs[:, 1].ravel(), length))
    return found


def scores_of_pairs(one: Rows, other: Rows, length: int) -> Scores:
    """Of two rows each that should have nothing to do with each other: of two epochs, seeds, datasets, positions."""
    low = (one & 15) * 16 + (other & 15)
    high = _binned(one, length, 16) * 16 + _binned(other, length, 16)
    return {
        "correlation": float(np.corrcoef(one, other)[0, 1]) * math.sqrt(len(one) - 1),
        "difference": _even(_binned((other - one) % length, length, 64), 64),
        "low bits": _even(low, 256),
        "high bits": _even(high, 256),
        "repeated differences": _repeats((other - one) % length, length),
    }


def scores_of_order(order: Callable[[Rows], Rows], length: int, sample: int) -> Scores:
    """Of a function from positions to rows: runs, and positions that lie any power of two apart."""
    start = length // 3
    run = np.arange(start, start + sample)
    rows = order(run)
    found = _named("run", scores_of_run(rows, length))
    for bit in range(1, (length - sample - start).bit_length() - 1):
        apart = order(run + (1 << bit))
        chosen = (run >> bit) & 1 == 0 if 1 << bit < sample else slice(None)  # no row in two pairs
        found |= _named(f"2^{bit} apart", scores_of_pairs(rows[chosen], apart[chosen], length))
    return found


def limit(scores: int, *, false_alarms: float = 1e-4) -> float:
    """What the largest of so many scores of chance stays below, but for this probability (Bonferroni)."""
    return NormalDist().inv_cdf(1 - false_alarms / scores / 2)


def worst(scores: Iterable[Scores]) -> tuple[str, float]:
    """The score that is farthest from zero, and its name."""
    return max(((name, z) for found in scores for name, z in found.items()), key=lambda one: abs(one[1]))


def _named(name: str, scores: Scores) -> Scores:
    return {f"{name}: {what}": z for what, z in scores.items()}


def _binned(rows: Rows, length: int, bins: int) -> Rows:
    return (rows * (bins / length)).astype(np.int64)


def _even(bins: Rows, count: int) -> float:
    """Chi-square of equally likely bins, as a normal score (Wilson and Hilferty 1931)."""
    expected = len(bins) / count
    squares = float(((np.bincount(bins, minlength=count) - expected) ** 2).sum()) / expected
    spread = 2 / 9 / (count - 1)
    return float(((squares / (count - 1)) ** (1 / 3) - (1 - spread)) / math.sqrt(spread))


def _repeats(differences: Rows, length: int) -> float:
    """Pairs of equal differences: about as many as chance has, by the square root of a Poisson number (Anscombe)."""
    if length <= 1 << 31:
        differences = differences.astype(np.int32)  # which are sorted in half of the time
    ordered = np.sort(differences)
    _, more = np.unique(ordered[1:][ordered[1:] == ordered[:-1]], return_counts=True)  # than the first of each
    pairs = float((more * (more + 1) / 2).sum())
    expected = len(differences) * (len(differences) - 1) / 2 / length
    return 2 * (math.sqrt(pairs + 3 / 8) - math.sqrt(expected + 3 / 8)) if expected > 1 else float(pairs > 20) * pairs
