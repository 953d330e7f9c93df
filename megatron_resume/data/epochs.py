"""One dataset's rows, epoch after epoch: which row is its sample number so and so.

The number of rows may grow between two epochs; a stretch is a run of epochs of one number of rows.
"""

import bisect
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .keys import key_words
from .permutation import ROUNDS, WORDS_PER_ROUND, Indices, Permutation

SORTED_BELOW = 1 << 16  # rows; a cipher on a small domain is a poor one, and sorting is cheap there
_BLOCK = 1 << 12  # rows of small epochs that are sorted at once

Table = NDArray[np.uint16]


class Stretch(NamedTuple):
    """Epochs of one number of rows."""

    first: int  # ordinal at which they begin
    epoch: int  # number of the first of them
    rows: int  # that an epoch chooses from
    length: int  # that an epoch takes; fewer than `rows` where the last are dropped


class Standing(NamedTuple):
    """Where an ordinal is: `done` samples of the epoch number `epoch` came before it."""

    epoch: int
    done: int
    rows: int
    length: int


class Epochs:
    """Rows of one dataset by ordinal: how many of its samples came before. May be asked from several threads."""

    def __init__(self, seed: int, dataset: int, *, shuffle: bool, rows: int, length: int) -> None:
        """Each epoch takes the first `length` of its order of `rows` rows."""
        self._seed, self._dataset, self._shuffle = seed, dataset, shuffle
        self._stretches = [Stretch(0, 0, rows, length)]
        self._last_table: tuple[tuple[int, int, int], Table] | None = None
        self._last_order: tuple[tuple[int, int], Permutation] | None = None

    def standing(self, ordinal: int) -> Standing:
        stretch = self._stretch(ordinal)
        epoch, done = divmod(ordinal - stretch.first, stretch.length)
        return Standing(stretch.epoch + epoch, done, stretch.rows, stretch.length)

    def grow(self, ordinal: int, *, rows: int, length: int) -> None:
        """From the first epoch that begins at `ordinal` or later, choose from `rows` rows; what was to come is void."""
        stretch = self._stretch(ordinal)
        epochs = -(-(ordinal - stretch.first) // stretch.length)
        kept = [one for one in self._stretches if one.first < stretch.first + epochs * stretch.length]
        begins = stretch.first + epochs * stretch.length
        self._stretches = [*kept, Stretch(begins, stretch.epoch + epochs, rows, length)]

    def rows(self, first: int, count: int) -> Indices:
        """The rows of the ordinals from `first` on, shape (count,)."""
        piece = self._piece(first, count) if count else np.empty(0, np.int64)
        if len(piece) == count:
            return piece.astype(np.int64, copy=False)
        found = np.empty(count, np.int64)
        found[: len(piece)] = piece
        done = len(piece)
        while done < count:
            piece = self._piece(first + done, count - done)
            found[done : done + len(piece)] = piece
            done += len(piece)
        return found

    def _stretch(self, ordinal: int) -> Stretch:
        return self._stretches[self._number(ordinal)]

    def _number(self, ordinal: int) -> int:
        return bisect.bisect_right(self._stretches, ordinal, key=lambda one: one.first) - 1

    def _piece(self, first: int, count: int) -> Indices | Table:
        """Some of the rows from `first` on: one at least, `count` at most, and of one stretch."""
        number = self._number(first)
        stretch = self._stretches[number]
        if number + 1 < len(self._stretches):
            count = min(count, self._stretches[number + 1].first - first)
        start = first - stretch.first
        if not self._shuffle or stretch.rows == 1:
            return np.arange(start, start + count) % stretch.length
        if stretch.rows < SORTED_BELOW:
            return self._of_table(stretch, start, count)
        epoch, index = divmod(start, stretch.length)
        return self._order(stretch.epoch + epoch, stretch.rows).span(index, min(index + count, stretch.length))

    def _of_table(self, stretch: Stretch, start: int, count: int) -> Table:
        epochs = max(1, _BLOCK // stretch.rows)
        block, index = divmod(start, epochs * stretch.length)
        return self._table(stretch, stretch.epoch + block * epochs, epochs)[index : index + count]

    # What was computed last is kept; a tuple is replaced whole, so that threads never see half of it.
    def _table(self, stretch: Stretch, epoch: int, epochs: int) -> Table:
        name = (epoch, stretch.rows, stretch.length)
        last = self._last_table
        if last is None or last[0] != name:
            keys = [self._key(number) for number in range(epoch, epoch + epochs)]
            last = name, sorted_orders(stretch.rows, keys)[:, : stretch.length].reshape(-1)
            self._last_table = last
        return last[1]

    def _order(self, epoch: int, rows: int) -> Permutation:
        last = self._last_order
        if last is None or last[0] != (epoch, rows):
            last = (epoch, rows), Permutation(rows, self._key(epoch))
            self._last_order = last
        return last[1]

    def _key(self, epoch: int) -> tuple[int, ...]:
        return key_words(self._seed, self._dataset, epoch, ROUNDS * WORDS_PER_ROUND)


def sorted_orders(rows: int, keys: list[tuple[int, ...]]) -> Table:
    """Permutations of [0, rows), rows < SORTED_BELOW, one for each key: shape (len(keys), rows).

    Rows stand by a keyed hash of 48 bits (the finalizer of MurmurHash3, twice), and equal hashes by row: so no two
    words that are sorted are equal, and every way to sort gives the same.
    """
    key = np.array([words[:4] for words in keys], np.uint64)[:, :, np.newaxis]
    row = np.arange(rows, dtype=np.uint64)
    words = _mixed(_mixed(row * (key[:, 0] | np.uint64(1)) + key[:, 1]) * (key[:, 2] | np.uint64(1)) + key[:, 3])
    words &= ~np.uint64(SORTED_BELOW - 1)
    words |= row
    words.sort(axis=1)
    return words.astype(np.uint16)  # the low bits


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    words ^= words >> np.uint64(33)
    words *= np.uint64(0xFF51AFD7ED558CCD)
    words ^= words >> np.uint64(33)
    words *= np.uint64(0xC4CEB9FE1A85EC53)
    words ^= words >> np.uint64(33)
    return words
