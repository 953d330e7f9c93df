"""The global order of samples: a pure function of the seed, the set-up, its recorded changes, and the position.

A position counts samples over all ranks from the first start of the job. A change holds from its position on, and
nothing before it moves.
"""

import bisect
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .epochs import Epochs, Standing
from .mixture import Mixture
from .permutation import BLOCK, Indices
from .weights import MAX_CYCLE, shares, slots_of


class Setup(NamedTuple):
    """What the order is of."""

    sizes: tuple[int, ...]  # rows of each dataset
    samples_per_episode: int
    weights: tuple[float, ...] = ()  # none: by size

    def slots(self) -> tuple[int, ...]:
        return slots_of(shares(self.weights, self.sizes))


class Change(NamedTuple):
    """From position `at` on, the order is of `setup`."""

    at: int
    setup: Setup


class Rules(NamedTuple):
    """What holds for the whole order and never changes."""

    seed: int = 0
    shuffle: bool = True
    drop_last: bool = False


class _Mix(NamedTuple):
    first: int  # position
    before: tuple[int, ...]  # samples of each dataset before it
    mixture: Mixture


class _Episodes(NamedTuple):
    first: int  # position
    number: int
    length: int


class Order:
    """Which row of which dataset is at each position. Does not change, and may be asked from several threads."""

    def __init__(self, rules: Rules, history: tuple[Change, ...]) -> None:
        """The first change of `history` is at 0 and tells how the job began; positions then ascend.

        Raises:
            ValueError: A change is not possible: see `unchangeable`; weights, sizes or positions make no sense.
        """
        self.rules, self.history = rules, history
        self._mixes: list[_Mix] = []
        self._epochs: list[Epochs] = []
        self._episodes: list[_Episodes] = []
        for number, change in enumerate(history):
            before = history[number - 1] if number else Change(-1, Setup((), 0))
            self._check(before, change)
            self._apply(before, change)

    @property
    def last(self) -> Change:
        return self.history[-1]

    @property
    def setup(self) -> Setup:
        return self.last.setup

    def changed(self, setup: Setup, at: int) -> "Order":
        """The order that becomes one of `setup` at position `at`, which is not before its last change.

        Raises:
            ValueError: It is not possible, as `__init__` says.
        """
        kept = tuple(change for change in self.history if change.at < at)
        if kept and kept[-1].setup == setup:
            return Order(self.rules, kept)
        return Order(self.rules, (*kept, Change(at, setup)))

    def positions(self, start: int, count: int) -> tuple[NDArray[np.uint16], Indices]:
        """Datasets and rows of the positions from `start` on, each of shape (count,)."""
        datasets = np.zeros(count, np.uint16)
        if len(self._epochs) == 1:
            return datasets, self._epochs[0].rows(start, count)
        rows = np.empty(count, np.int64)
        for mix, begin, end in self._pieces(start, start + count):
            of = slice(begin - start, end - start)
            datasets[of] = mix.mixture.datasets(begin - mix.first, end - begin)
            for part in mix.mixture.parts(begin - mix.first, end - begin):
                first = mix.before[part.dataset] + part.first
                rows[of][part.places] = self._epochs[part.dataset].rows(first, len(part.places))
        return datasets, rows

    def consumed(self, position: int) -> tuple[int, ...]:
        """How many samples of each dataset are before `position`."""
        mix = self._mix(position)
        counts = mix.mixture.counts(position - mix.first).tolist()
        return tuple(before + count for before, count in zip(mix.before, counts, strict=True))

    def standing(self, position: int) -> tuple[Standing, ...]:
        """Where each dataset is in its epochs."""
        return tuple(self._epochs[number].standing(count) for number, count in enumerate(self.consumed(position)))

    def episode(self, position: int) -> tuple[int, int]:
        """Number of the episode that `position` is in, from 0, and the position at which it ends."""
        found = self._episodes[bisect.bisect_right(self._episodes, position, key=lambda one: one.first) - 1]
        done = (position - found.first) // found.length
        return found.number + done, found.first + (done + 1) * found.length

    def _mix(self, position: int) -> _Mix:
        return self._mixes[bisect.bisect_right(self._mixes, position, key=lambda one: one.first) - 1]

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[_Mix, int, int]]:
        """Windows of one mixture each, and of a block at most: (mixture, begin, end)."""
        while start < stop:
            number = bisect.bisect_right(self._mixes, start, key=lambda one: one.first)
            ends = [mix.first for mix in self._mixes[number : number + 1]]
            end = min(start + BLOCK, stop, *ends)
            yield self._mixes[number - 1], start, end
            start = end

    def _check(self, before: Change, change: Change) -> None:
        if change.at <= before.at or (change.at and not before.setup.sizes):
            raise ValueError(f"a change at position {change.at} after one at {before.at}")
        why_not = unchangeable(self, before.setup, change) if change.at else unfit(self.rules, change.setup)
        if why_not:
            raise ValueError(why_not)

    def _apply(self, before: Change, change: Change) -> None:
        at, setup = change
        consumed = self.consumed(at) if self._mixes else ()
        for number, rows in enumerate(setup.sizes):
            length = self._epoch_length(setup, rows)
            if number >= len(self._epochs):
                self._epochs.append(
                    Epochs(self.rules.seed, number, shuffle=self.rules.shuffle, rows=rows, length=length)
                )
            elif rows != before.setup.sizes[number]:
                self._epochs[number].grow(consumed[number], rows=rows, length=length)
        slots = setup.slots()
        if not self._mixes or self._mixes[-1].mixture.slots != slots:
            new = (0,) * (len(slots) - len(consumed))
            self._mixes.append(_Mix(at, (*consumed, *new), Mixture(slots)))
        if setup.samples_per_episode != before.setup.samples_per_episode:
            number = self.episode(at)[0] if self._episodes else 0
            self._episodes.append(_Episodes(at, number, setup.samples_per_episode))

    def _epoch_length(self, setup: Setup, rows: int) -> int:
        return rows - rows % setup.samples_per_episode if self.rules.drop_last else rows


def unfit(rules: Rules, setup: Setup) -> str:
    """Why no order is possible of `setup`; empty where one is. Whole numbers are checked before."""
    if not setup.sizes:
        return "no dataset; give the size of one at least"
    if len(setup.sizes) > MAX_CYCLE:
        return f"{len(setup.sizes):,} datasets; mix {MAX_CYCLE:,} at most"
    if not rules.drop_last:
        return ""
    if len(setup.sizes) > 1:
        return (
            "drop_last with several datasets: their epochs end at different moments, so no episode is the last of "
            "all; leave drop_last out, and episodes cross epochs"
        )
    if setup.sizes[0] < setup.samples_per_episode:
        return (
            f"drop_last with {setup.sizes[0]:,} rows and {setup.samples_per_episode:,} samples per episode would drop "
            "every sample; lower samples_per_episode, or leave drop_last out"
        )
    return ""


def unchangeable(order: Order, then: Setup, change: Change) -> str:
    """Why `then`, in which `order` is at the change's position, cannot become its set-up; empty where it can."""
    now = change.setup
    if len(now.sizes) < len(then.sizes):
        return f"{len(then.sizes) - len(now.sizes)} of {len(then.sizes)} datasets are gone"
    for number, (rows, rows_now) in enumerate(zip(then.sizes, now.sizes, strict=False)):
        if rows_now < rows:
            return f"{rows - rows_now:,} rows of dataset {number} are gone"
    if now.samples_per_episode != then.samples_per_episode:
        if order.rules.drop_last:
            return "with drop_last, samples_per_episode decides which samples an epoch leaves out, also before"
        begins = order.episode(change.at)[1] - then.samples_per_episode
        if begins != change.at:
            return (
                f"samples_per_episode can change between episodes only, and episode {order.episode(change.at)[0]} is "
                f"at sample {change.at - begins:,} of {then.samples_per_episode:,}"
            )
    return unfit(order.rules, now)
