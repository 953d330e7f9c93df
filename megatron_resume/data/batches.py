"""What each rank takes of the global order, batch by batch: a torch batch_sampler without torch."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from ..errors import ConfigError, DamagedError
from .history import Order
from .numbers import MAX_NUMBER, whole
from .permutation import Indices
from .window import Window

_log = logging.getLogger(__name__)


class Source(Protocol):
    """A sampler, as its ranks see it."""

    @property
    def consumed_samples(self) -> int: ...

    @property
    def order(self) -> Order: ...

    def window(self) -> Window: ...


class RankBatches:
    """Batches of one rank, without end.

    A global batch is the next num_ranks * micro_batch_size positions, and rank r has the r-th slice of
    micro_batch_size of it, as with Megatron's MegatronPretrainingSampler. None crosses an episode's end: the last of an
    episode, where it is partial, is divided evenly (sizes differ by one at most, lower ranks have the larger), and a
    rank may get an empty batch, so that all ranks take equally many steps. All ranks together get the global order.

    A batch is a read-only array of shape (n,), or (n, 2) of (dataset, row), that a DataLoader takes as it is.

    Who moves what: iterating begins where the sampler is at that moment, also in mid-episode, and does not move it,
    because a DataLoader draws ahead of the training; the job moves the sampler (`advance`, `seek`) by what it trained
    on. `state_dict` tells where this iteration is instead, after the batches that were drawn, for a DataLoader that
    counts those itself (torchdata's StatefulDataLoader).
    """

    def __init__(self, sampler: Source, rank: int, num_ranks: int, micro_batch_size: int) -> None:
        """Raises ConfigError for a rank that is not below num_ranks, or numbers below 1."""
        self._sampler = sampler
        self.num_ranks = whole("num_ranks", num_ranks, least=1, below=1 << 31)
        self.rank = whole("rank", rank, least=0)
        self.micro_batch_size = whole("micro_batch_size", micro_batch_size, least=1, below=1 << 31)
        if self.rank >= self.num_ranks:
            raise ConfigError(f"rank is {self.rank:,} of {self.num_ranks:,} ranks; give 0 to {self.num_ranks - 1:,}")
        self._drawn: int | None = None  # position after the last batch of the running iteration
        self._restored = False
        self._has_warned = False

    def __iter__(self) -> Iterator[Indices]:
        position = self._drawn if self._restored and self._drawn is not None else self._sampler.consumed_samples
        self._drawn = position
        return self._batches(self._sampler.order, self._sampler.window(), position)

    def _batches(self, order: Order, window: Window, position: int) -> Iterator[Indices]:
        self._restored = False  # not before: a StatefulDataLoader with workers begins twice, and draws once
        size = self.num_ranks * self.micro_batch_size
        begin, end = self.rank * self.micro_batch_size, (self.rank + 1) * self.micro_batch_size
        while True:
            _, episode_end = order.episode(position)
            while position + size <= episode_end:
                self._look_whether_used(position)
                self._drawn = position + size
                yield window.read(position, size)[begin:end]
                position += size
            if position < episode_end:
                self._look_whether_used(position)
                self._drawn = episode_end
                yield self._share(window.read(position, episode_end - position))
            position = episode_end

    def _look_whether_used(self, position: int) -> None:
        used = self._sampler.consumed_samples
        if used > position and not self._has_warned:
            self._has_warned = True
            _log.warning(
                "this iteration goes on at sample %d, and the job has used %d: prompts that the job has used come "
                "again. Begin a new iteration after `seek`, after an `advance` by more than was drawn, and after the "
                "first `advance` of a start in mid-episode",
                position,
                used,
            )

    def _share(self, rest: Indices) -> Indices:
        size, larger = divmod(len(rest), self.num_ranks)
        begin = self.rank * size + min(self.rank, larger)
        return rest[begin : begin + size + (self.rank < larger)]

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration is, in samples of the global order; the same on all ranks."""
        return {"consumed_samples": self._sampler.consumed_samples if self._drawn is None else self._drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The next iteration begins there, whatever the number of ranks was.

        Raises:
            DamagedError: `state` is not from `state_dict`.
        """
        found = state.get("consumed_samples") if isinstance(state, Mapping) else None
        if type(found) is not int or not 0 <= found < MAX_NUMBER or len(state) != 1:
            raise DamagedError(f"the state of the batches is {state!r}; a position was saved there")
        self._drawn, self._restored = found, True
