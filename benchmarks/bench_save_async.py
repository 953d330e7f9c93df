"""Promise: an asynchronous save on 2 ranks costs the training thread at most 1 ms more than without us.

Counted is what our wrappers take beyond Megatron's own functions, from its begin until it is finalized;
each save is timed alone, after the writer made the one before durable.
"""

import statistics
import sys

from promise import Result, main, result
from saves import ASYNC, SMALL, time_saves

ROUNDS = 25


def measure() -> Result:
    times = time_saves(ROUNDS, *SMALL, *ASYNC)
    return result(
        "asynchronous save, training thread",
        times.ours,
        1,
        "ms",
        of_that_cpu_time=round(statistics.median(times.ours_cpu), 1),
        megatron_itself=round(statistics.median(times.stock), 1),
    )


if __name__ == "__main__":
    sys.exit(main(measure))
