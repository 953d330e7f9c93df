"""Promise: a synchronous save of 500 MB or more on 2 ranks takes at most 1.02 times what it takes without us.

Counted as in bench_save_small.py, as a ratio.
"""

import operator
import statistics
import sys

from promise import Result, main, result
from saves import LARGE, time_saves

ROUNDS = 12
AT_LEAST = 500_000_000  # bytes


def measure() -> Result:
    times = time_saves(ROUNDS, *LARGE)
    assert times.checkpoint_bytes >= AT_LEAST, times.checkpoint_bytes
    stock = statistics.median(times.stock)
    ratios = [1 + ours / stock for ours in times.ours]
    side_by_side = statistics.median(map(operator.truediv, times.hooked, times.stock))
    name = f"synchronous save of {times.checkpoint_bytes / 1e6:.0f} MB"
    return result(name, ratios, 1.02, "x", side_by_side=round(side_by_side, 3))


if __name__ == "__main__":
    sys.exit(main(measure))
