"""Measure one order at one size, in this process alone; prints JSON. `measure.py NAME SIZE`."""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from statistics import median

from measured import Measured
from order import BATCH, Batch, Order
from peak import Peak
from registry import order_named

ROUNDS, ROUNDS_S = 25, 2.0  # as many as are cheap
DRAWN = 1_000_000  # indices at least, for their rate
DRAW_S, STRETCH = 1.0, 256  # batches
WARM = 10 * BATCH


def measure(order: type[Order], size: int) -> Measured:
    position = size * 99 // 100 // BATCH * BATCH
    _begin(order, WARM, 0)  # whatever is imported or compiled at first use
    peak = Peak()
    times, state, batches = _begin(order, size, position)
    peak_bytes, rounds = peak.bytes(), [times]
    if size - position < DRAWN:  # too few are left
        del batches
        _, _, batches = _begin(order, size, 0)
    rate = _rate(batches)
    del batches
    while len(rounds) < ROUNDS and sum(map(sum, rounds)) < ROUNDS_S:
        rounds.append(_begin(order, size, position)[0])
    construct, seek = (median(of) for of in zip(*rounds, strict=True))
    return Measured(construct, seek, peak_bytes, state, rate, len(rounds))


def _begin(order: type[Order], size: int, position: int) -> tuple[tuple[float, float], int, Iterator[Batch]]:
    """Seconds to make an order and to have the first batch; the size of its state; and its further batches."""
    begun = time.perf_counter()
    made = order(size)
    constructed = time.perf_counter()
    batches = made.batches(position)
    first = next(batches)
    ended = time.perf_counter()
    assert len(first) == BATCH
    return (constructed - begun, ended - constructed), made.state_bytes(), batches


def _rate(batches: Iterator[Batch]) -> float:
    """Indices per second: the median of stretches, each longer than any order computes ahead."""
    rates, begun = list[float](), time.perf_counter()
    while not rates or time.perf_counter() - begun < DRAW_S:
        stretch_begun = time.perf_counter()
        drawn = sum(map(len, islice(batches, STRETCH)))
        if rates and drawn < STRETCH * BATCH:  # the epoch has ended
            break
        rates.append(drawn / (time.perf_counter() - stretch_begun))
    return median(rates)


def main(name: str, size: str) -> int:
    print(json.dumps(asdict(measure(order_named(name), int(size)))))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
