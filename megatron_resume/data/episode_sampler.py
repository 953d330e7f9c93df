"""The prompts of each episode, in one global order that nothing which happens to the job can change."""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError, MismatchError
from .batches import RankBatches
from .dataset_change import DatasetChange, change_between, refusal
from .fingerprint import Content, Dataset, Described, Fingerprint, content, differences
from .given import checked_datasets, checked_description, checked_setup
from .history import Change, Order, Rules
from .numbers import whole
from .permutation import BLOCK, Indices
from .state import MAX_CHANGES, Saved, packed, unpacked
from .weights import coarse, shares
from .window import Window

PROOF_SAMPLES = 1 << 16
ON_DATASET_CHANGE = ("refuse", "append")
_WARNED_OF = 8  # datasets, at most

_log = logging.getLogger(__name__)


class EpisodeSampler:
    """Which row each sample of the job is, and how far the job is: from its first start, and over all ranks.

    The order is a pure function of what is given here, of the changes that were recorded, and of the position. Each
    epoch of each dataset is a permutation of its own of the dataset's rows, and every prefix keeps to the weights to
    within one sample for each dataset. Seeking costs as much as reading, wherever to.

    The position is moved by `take`, by iterating over the sampler, by `advance` and `seek`, and by `load_state_dict`;
    `positions`, `proof` and iterating over `for_rank` do not move it.
    """

    _order: Order
    _consumed: int
    _window: Window

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
        """Raises ConfigError for what makes no order, and says what to give.

        Args:
            sizes: rows of the dataset, or of each dataset of a mixture.
            samples_per_episode: prompts of one episode, over all ranks.
            weights: of each dataset in the mixture, in any unit; by size where not given. Decimal numbers are kept
                exactly where a cycle of 65,536 samples or less can, and else as nearly as one of 65,536 can.
            shuffle: False gives rows 0, 1, 2 ... and around again.
            drop_last: leave out the samples at an epoch's end that fill no whole episode; of a single dataset only.
                Without it, episodes cross epochs.
            datasets: what the sizes are of; then a change of their content is seen on resume.
            described: whatever else the samples depend on, by name; a change of it is refused on resume.
        """
        self._flat = not isinstance(sizes, Iterable)
        rules = Rules(whole("seed", seed, least=0), bool(shuffle), bool(drop_last))
        self._given = checked_setup(rules, [sizes] if self._flat else sizes, samples_per_episode, weights)  # type: ignore[arg-type]
        self._datasets = checked_datasets(datasets, self._given.sizes)
        self._described = checked_description(described or {})
        self._described_before: Described = {}  # in the state that was loaded
        self._contents: tuple[Content, ...] | None = None  # not yet read
        self._place(Order(rules, (Change(0, self._given),)), 0)
        self._warn_of_coarse_weights()

    @property
    def order(self) -> Order:
        """The order as it is now; never changes itself."""
        return self._order

    @property
    def consumed_samples(self) -> int:
        """The position: samples that the job has used, over all ranks."""
        return self._consumed

    @property
    def episode(self) -> int:
        """Number of the episode that the position is in, from 0."""
        return self._order.episode(self._consumed)[0]

    def positions(self, start: int, count: int) -> Indices:
        """Rows of the positions from `start` on: shape (count,), or (count, 2) of (dataset, row) for a list of sizes.

        May be called from several threads.
        """
        start, count = whole("start", start, least=0), whole("count", count, least=0)
        return _laid_out(self._order, self._flat, start, count)

    def take(self, count: int) -> Indices:
        """The next `count` positions, as `positions` has them, and read-only; moves behind them."""
        found = self._window.read(self._consumed, whole("count", count, least=0))
        self._consumed += count
        return found

    def __iter__(self) -> Iterator[Any]:
        """Row after row, or (dataset, row), without end; moves behind each that is given."""
        while True:
            window, position = self._window, self._consumed
            for row in window.rest(position).tolist():
                if window is not self._window or position != self._consumed:
                    break  # moved from outside
                position += 1
                self._consumed = position
                yield row if self._flat else tuple(row)

    def seek(self, consumed_samples: int) -> None:
        """Move to a position, forwards or back."""
        self._consumed = whole("consumed_samples", consumed_samples, least=0)

    def advance(self, samples: int) -> None:
        """Move on by `samples`, which the job has used: as when it trained on what a DataLoader gave it."""
        self.seek(self._consumed + whole("samples", samples, least=0))

    def for_rank(self, rank: int, num_ranks: int, micro_batch_size: int) -> RankBatches:
        """Batches of one rank, for a DataLoader's batch_sampler; see there for who moves what."""
        return RankBatches(self, rank, num_ranks, micro_batch_size)

    def window(self) -> Window:
        """A reader of the order as it is now."""
        order, flat = self._order, self._flat
        return Window(lambda start, count: _laid_out(order, flat, start, count))

    def proof(self, consumed_samples: int) -> str:
        """Hexadecimal digest of the last 65,536 positions, or as many as there are, before `consumed_samples`.

        Equal digests: equal samples in equal order. May be called from several threads.
        """
        end = whole("consumed_samples", consumed_samples, least=0)
        digest = hashlib.blake2b(digest_size=32)
        for start in range(max(0, end - PROOF_SAMPLES), end, BLOCK):
            datasets, rows = self._order.positions(start, min(BLOCK, end - start))
            digest.update(datasets.astype("<u2").tobytes())
            digest.update(rows.astype("<i8", copy=False).data)
        return digest.hexdigest()

    def state_dict(self, consumed_samples: int | None = None) -> dict[str, Any]:
        """The position and what the order follows from, as plain values that fit into JSON.

        Args:
            consumed_samples: the position to save, where the job has come to another than the sampler, which stays.
        """
        at = self._consumed if consumed_samples is None else whole("consumed_samples", consumed_samples, least=0)
        described = {**self._described_before, **self._described}
        return packed(Saved(at, self._order, self._known(), described))

    def load_state_dict(self, state: Mapping[str, Any], *, on_dataset_change: str = "refuse") -> DatasetChange | None:
        """Go on where `state` was taken, in the same order; None where nothing has changed since.

        With "append", rows and datasets that are new, other weights and other samples_per_episode are recorded as a
        change from there on, and told; what was before never moves.

        Raises:
            MismatchError: Something else has changed, or anything with "refuse". Shows what, and what to type.
            DamagedError: `state` is not whole. In either case nothing has moved.
        """
        if on_dataset_change not in ON_DATASET_CHANGE:
            raise ConfigError(f"on_dataset_change is {on_dataset_change!r}; give one of {', '.join(ON_DATASET_CHANGE)}")
        saved = unpacked(state)
        at = max(saved.consumed_samples, saved.order.last.at)  # a job that went back keeps what it had recorded
        found = differences(saved.fingerprint, self._fingerprint(saved.order.setup.sizes), saved.order, at)
        if found and (on_dataset_change == "refuse" or any(one.why_not for one in found)):
            raise refusal(found, saved.consumed_samples)
        order = saved.order.changed(self._given, at) if found else saved.order
        if len(order.history) > 1 + MAX_CHANGES:
            raise MismatchError(
                f"{MAX_CHANGES:,} changes of the data are recorded already, and no more can be; give the job what was "
                "saved, or begin anew with --start-over"
            )
        change = change_between(saved.order, order, found, at) if found else None
        if not self._datasets:
            same = order.setup.sizes == saved.order.setup.sizes
            self._contents = saved.contents if same else ()  # as far as anybody knows
        self._described_before = saved.described
        self._place(order, saved.consumed_samples)
        return change

    def _place(self, order: Order, consumed: int) -> None:
        self._order, self._consumed = order, consumed
        self._window = self.window()

    def _known(self) -> tuple[Content, ...]:
        if self._contents is None:
            self._contents = self._read_contents(self._given.sizes)
        return self._contents

    def _read_contents(self, rows: tuple[int, ...]) -> tuple[Content, ...]:
        if self._datasets and self._contents is not None and rows == self._given.sizes:
            return self._contents  # to read them may take long
        return tuple(content(one, size) for one, size in zip(self._datasets, rows, strict=False))

    def _fingerprint(self, saved_sizes: tuple[int, ...]) -> Fingerprint:
        """Of what this sampler was given, with the contents of as many rows as were saved."""
        sizes = (*saved_sizes, *self._given.sizes[len(saved_sizes) :])
        return Fingerprint(self._order.rules, self._given, self._read_contents(sizes), self._described)

    def _warn_of_coarse_weights(self) -> None:
        found = list(coarse(shares(self._given.weights, self._given.sizes), self._given.slots()))
        for number, wanted, has in found[:_WARNED_OF]:
            name = f" ({self._datasets[number].name})" if self._datasets else ""
            _log.warning(
                "dataset %d%s is to be %.3g%% of all samples and will be %.3g%%, as near as a cycle of 65,536 samples "
                "comes; give weights that are multiples of 1/65,536 to choose yourself",
                number,
                name,
                100 * wanted,
                100 * has,
            )
        if len(found) > _WARNED_OF:
            _log.warning("and %s other datasets are as coarse", f"{len(found) - _WARNED_OF:,}")


def _laid_out(order: Order, flat: bool, start: int, count: int) -> Indices:
    datasets, rows = order.positions(start, count)
    if flat:
        return rows
    found = np.empty((count, 2), np.int64)
    found[:, 0], found[:, 1] = datasets, rows
    return found
