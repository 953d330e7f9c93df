"""Positions computed ahead: many at a time where they are asked for in sequence, and few after a jump."""

from collections.abc import Callable

from .permutation import BLOCK, Indices

_AFTER_A_JUMP = 1 << 10  # positions; the next piece is four times as long, and so on


class Window:
    """Reads positions through a piece of them that is kept. Of one thread."""

    def __init__(self, positions: Callable[[int, int], Indices]) -> None:
        self._positions = positions
        self._start, self._piece = 0, positions(0, 0)
        self._length = _AFTER_A_JUMP
        self._longest = BLOCK // (2 if self._piece.ndim == 2 else 1)  # pairs take twice the memory

    def read(self, start: int, count: int) -> Indices:
        """The positions from `start` on, shape (count, ...); not to be written to."""
        at = start - self._start
        if not 0 <= at <= len(self._piece) - count:
            self._fetch(start, count)
            at = 0
        return self._piece[at : at + count]

    def rest(self, start: int) -> Indices:
        """The same, as many as are at hand; one at least."""
        self.read(start, 1)
        return self._piece[start - self._start :]

    def _fetch(self, start: int, count: int) -> None:
        follows = self._start <= start <= self._start + len(self._piece)
        self._length = min(self._length * 4, self._longest) if follows else _AFTER_A_JUMP
        whole = max(1, self._length // max(1, count)) * count  # whole batches: none is computed twice
        self._start, self._piece = start, self._positions(start, max(1, whole))
        self._piece.flags.writeable = False
