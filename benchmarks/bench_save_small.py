"""Promise: a synchronous save of a tiny model on 2 ranks takes at most 10 ms longer than without us.

Each save is timed alone, after the writer made the one before durable. What our wrappers take beyond
Megatron's own functions counts; the difference of saves side by side stands beside it, for it is mostly noise.
"""

import statistics
import sys

from promise import Result, main, result
from saves import SMALL, time_saves

ROUNDS = 25


def measure() -> Result:
    times = time_saves(ROUNDS, *SMALL)
    return result(
        "synchronous save, tiny model",
        times.ours,
        10,
        "ms",
        of_that_cpu_time=round(statistics.median(times.ours_cpu), 1),
        side_by_side=round(times.paired, 1),
        megatron_itself=round(statistics.median(times.stock), 1),
    )


if __name__ == "__main__":
    sys.exit(main(measure))
