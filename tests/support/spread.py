"""Compare the traces of two runs: to the bit, or within the spread of two runs that nobody disturbed.

On a GPU sums may come out otherwise each time, unless Megatron is told to be deterministic. Then a resumed run cannot
be the undisturbed one to the bit; but it must not be farther from it than a second undisturbed run is.
"""

from collections.abc import Sequence
from typing import Any

Trace = Sequence[dict[str, Any]]

ALWAYS_EQUAL = ("iteration", "episode", "prompt_ids", "prompt_rows")
MEASURED = ("reward", "policy_loss", "value_loss", "kl", "lr")
TIMES_THE_SPREAD = 2.0  # two runs are a small sample of what can come out


def difference(resumed: Trace, undisturbed: Trace) -> str:
    """The first thing in which they differ; empty where they are equal to the bit."""
    if len(resumed) != len(undisturbed):
        return f"{len(resumed)} iterations, and the undisturbed run has {len(undisturbed)}"
    for ours, theirs in zip(resumed, undisturbed, strict=True):
        for name in theirs:
            if ours[name] != theirs[name]:
                return f"iteration {theirs['iteration']}: {name} is {ours[name]!r:.60}, and was {theirs[name]!r:.60}"
    return ""


def beyond_spread(resumed: Trace, undisturbed: Trace, again: Trace) -> str:
    """The first thing in which `resumed` differs by more than the two others differ; empty where nothing does.

    Counters and prompts must be equal in all three. A field's spread is its largest difference between the two
    undisturbed runs, over all iterations; where these are equal, `resumed` must be so, too.
    """
    kept = [[{name: line[name] for name in ALWAYS_EQUAL} for line in trace] for trace in (resumed, undisturbed, again)]
    unequal = difference(kept[0], kept[1]) or difference(kept[2], kept[1])
    if unequal:
        return unequal
    for name in MEASURED:
        spread = max(_distance(name, a, b) for a, b in zip(undisturbed, again, strict=True))
        for ours, *theirs in zip(resumed, undisturbed, again, strict=True):
            distance = min(_distance(name, ours, one) for one in theirs)
            if not distance <= TIMES_THE_SPREAD * spread:  # also where it is not a number
                return f"iteration {ours['iteration']}: {name} is {distance:.3g} away, the spread is {spread:.3g}"
    return ""


def _distance(name: str, one: dict[str, Any], other: dict[str, Any]) -> float:
    """Of a number that traces hold as a hexadecimal float, to the last bit."""
    return abs(float.fromhex(one[name]) - float.fromhex(other[name]))
