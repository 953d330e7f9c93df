"""grain's shuffled data set, and the permutation below it."""

import json
import os
from collections.abc import Callable, Iterator

os.environ.setdefault("ABSL_MIN_LOG_LEVEL", "2")
import grain
from grain._src.python.experimental.index_shuffle.python.index_shuffle_module import index_shuffle
from order import BATCH, SEED, Batch, Order


class GrainOrder(Order):
    """`at(index)` gives one sample; grain has no call for many."""

    at: Callable[[int], int]
    size: int
    position = 0

    def batches(self, position: int) -> Iterator[Batch]:
        at = self.at
        for begin in range(position, self.size - BATCH + 1, BATCH):
            self.position = begin
            yield [at(index) for index in range(begin, begin + BATCH)]

    def state_bytes(self) -> int:
        return len(json.dumps({"next_index": self.position}))


class GrainDataset(GrainOrder):
    def __init__(self, size: int) -> None:
        self.size, self.at = size, grain.MapDataset.range(size).shuffle(seed=SEED).__getitem__


class GrainIndexShuffle(GrainOrder):
    def __init__(self, size: int) -> None:
        self.size = size
        self.at = lambda index: index_shuffle(index, max_index=size - 1, seed=SEED, rounds=4)
