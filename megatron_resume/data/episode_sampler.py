"""The prompts of each episode, in one global order that is the same whatever happens to the job."""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError
from .batches import RankBatches
from .fingerprint import Dataset
from .history import Change, Order, Rules, Setup
from .numbers import MAX_NUMBER, whole
from .permutation import Indices
from .weights import coarse, shares
from .window import Window

PROOF_SAMPLES = 1 << 16

_log = logging.getLogger(__name__)


class EpisodeSampler:
    """Positions of samples, over all ranks, from the first start of the job; and which row each of them is."""

    def __init__(
        self,
        sizes: int | Sequence[int],
        *,
        samples_per_episode: int,
        seed: int = 0,
        weights: Sequence[float] | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        datasets: Sequence[Dataset] | Dataset | None = None,
        described: Mapping[str, str | int | float] | None = None,
    ) -> None:
        self._flat = not isinstance(sizes, Sequence)
        rows = tuple(whole("a size", size, least=1) for size in ([sizes] if self._flat else sizes))  # type: ignore[union-attr]
        setup = Setup(rows, whole("samples_per_episode", samples_per_episode, least=1), tuple(weights or ()))
        rules = Rules(whole("seed", seed, least=0), bool(shuffle), bool(drop_last))
        self._order = Order(rules, (Change(0, setup),))
        self._consumed = 0
        self._window = self.window()

    @property
    def order(self) -> Order:
        return self._order

    @property
    def consumed_samples(self) -> int:
        return self._consumed

    @property
    def episode(self) -> int:
        return self._order.episode(self._consumed)[0]

    def window(self) -> Window:
        order, flat = self._order, self._flat
        return Window(lambda start, count: _laid_out(order, flat, start, count))

    def positions(self, start: int, count: int) -> Indices:
        return _laid_out(self._order, self._flat, start, count)

    def take(self, count: int) -> Indices:
        found = self._window.read(self._consumed, count)
        self._consumed += count
        return found

    def seek(self, consumed_samples: int) -> None:
        self._consumed = whole("consumed_samples", consumed_samples, least=0)

    def for_rank(self, rank: int, num_ranks: int, micro_batch_size: int) -> RankBatches:
        return RankBatches(self, rank, num_ranks, micro_batch_size)


def _laid_out(order: Order, flat: bool, start: int, count: int) -> Indices:
    datasets, rows = order.positions(start, count)
    if flat:
        return rows
    found = np.empty((count, 2), np.int64)
    found[:, 0], found[:, 1] = datasets, rows
    return found
