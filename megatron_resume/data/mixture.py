"""Which dataset each sample of a mixture is of, so that every prefix keeps to the weights.

Tijdeman, "The chairman assignment problem", Discrete Mathematics 32 (1980): of the datasets that are due, the one whose
sample must come earliest. After any number of samples, each of k datasets has had its share to within
1 - 1 / (2k - 2) samples; in any window, to within two.
"""

import functools
import heapq
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .permutation import BLOCK, Indices


class Part(NamedTuple):
    """What a window of the mixture has of one dataset."""

    dataset: int
    first: int  # ordinal of its first sample here; those that follow count on
    places: NDArray[np.int32]  # where in the window its samples are, ascending


class Mixture:
    """A cycle of datasets that is repeated for ever; counted from its own beginning."""

    def __init__(self, slots: Sequence[int]) -> None:
        """Dataset number i gets slots[i] >= 1 of sum(slots) slots, at most 65,536."""
        self.slots = tuple(slots)
        self._cycle = sum(slots)
        self._owners, self._slots_of = _table(self.slots)

    def datasets(self, start: int, count: int) -> NDArray[np.uint16]:
        """Number of the dataset of each of `count` <= BLOCK samples from `start` on, shape (count,)."""
        slot = start % self._cycle
        return self._owners[slot : slot + count]

    def parts(self, start: int, count: int) -> Iterator[Part]:
        """The same by dataset: each that has samples in this window, ascending."""
        cycles, slot = divmod(start, self._cycle)
        for dataset in np.flatnonzero(np.bincount(self.datasets(start, count))).tolist():
            slots = self._slots_of[dataset]
            begin, end = slots.searchsorted((slot, slot + count)).tolist()
            yield Part(dataset, cycles * self.slots[dataset] + begin, slots[begin:end] - np.int32(slot))

    def counts(self, samples: int) -> Indices:
        """How many of the first `samples` samples are of each dataset, shape (datasets,)."""
        cycles, rest = divmod(samples, self._cycle)
        begun = np.bincount(self._owners[:rest], minlength=len(self.slots))
        return np.array(self.slots, np.int64) * cycles + begun


@functools.lru_cache(maxsize=8)  # a job's weights change seldom, and several samplers share them
def _table(slots: tuple[int, ...]) -> tuple[NDArray[np.uint16], list[NDArray[np.int32]]]:
    """Owner of each slot, and the slots of each owner: of a cycle, and a block of those that follow it."""
    cycle = sum(slots)
    once = np.fromiter(_chairmen(slots), np.uint16, count=cycle)
    owners = np.resize(once, cycle + BLOCK)
    by_owner = np.argsort(owners, kind="stable").astype(np.int32)
    return owners, np.split(by_owner, np.cumsum(np.bincount(owners, minlength=len(slots)))[:-1])


def _chairmen(slots: tuple[int, ...]) -> Iterator[int]:
    """Earliest deadline first among the released, in whole numbers.

    With a cycle of c and s slots of it, sample j (from 1) of a dataset is released at the first time t with
    s t / c - (j - 1) >= 1 / (2k - 2), and due one after the last t with s t / c - (j - 1) <= 1 - 1 / (2k - 2).
    """
    cycle, parts = sum(slots), max(2, 2 * len(slots) - 2)
    waiting = [(_release(1, slot, cycle, parts), number, 1) for number, slot in enumerate(slots)]
    heapq.heapify(waiting)
    released: list[tuple[int, int, int]] = []
    for time in range(1, cycle + 1):
        while waiting and waiting[0][0] <= time:
            _, number, sample = heapq.heappop(waiting)
            due = (sample * parts - 1) * cycle // (parts * slots[number]) + 1
            heapq.heappush(released, (due, number, sample))
        _, number, sample = heapq.heappop(released)
        if sample < slots[number]:
            heapq.heappush(waiting, (_release(sample + 1, slots[number], cycle, parts), number, sample + 1))
        yield number


def _release(sample: int, slots: int, cycle: int, parts: int) -> int:
    return -(-((sample - 1) * parts + 1) * cycle // (parts * slots))
