"""A keyed permutation of [0, length) that is computed where it is asked for, and stored nowhere.

A generalised Feistel cipher with cycle walking (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA
2002, methods 3 and 2) on pairs of a number below `a` and one of k bits: a * 2^k exceeds the length by less than 2^k,
at most its square root, so that hardly an index is walked. Rounds change the two halves in turn, the left by addition
modulo `a`, of the high half of a product (Lemire, "Fast random integer generation in an interval", ACM TOMACS 29(1),
2019), so that nothing is divided; the right by xor. Lengths below 2^32 are computed in words of 32 bits, which takes
half the time.

It orders samples and keeps no secrets.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Word = np.uint32 | np.uint64
Words = NDArray[Any]  # of one of these

MAX_LENGTH = 1 << 62  # `a` and 2^k are half a word at most: then sums and products of halves fit one
NARROW_BELOW = 1 << 32
ROUNDS = 6  # four are seen by tests/support/quality.py
WORDS_PER_ROUND = 2
BLOCK = 1 << 15  # indices that are well asked for at a time
_SCRATCH = 1 << 16  # bytes of each of the arrays that are reckoned in: they stay in the processor's cache

_MIX = 0x9FB21C651E98DF25  # odd, as its low 32 bits are, with bits well spread; the other factor is of the key


class Permutation:
    """One permutation of [0, length), chosen by a key of `WORDS_PER_ROUND` words of 64 bits for each round.

    Calls cost time and memory by the number of indices only, and may come from several threads.
    """

    def __init__(self, length: int, key: Sequence[int]) -> None:
        """Raises ValueError unless 1 <= length <= MAX_LENGTH and the key is of whole rounds."""
        if not 1 <= length <= MAX_LENGTH:
            raise ValueError(f"no permutation of {length:,} numbers; 1 to 2^62 are possible")
        if not key or len(key) % WORDS_PER_ROUND:
            raise ValueError(f"a key of {len(key)} words; it takes {WORDS_PER_ROUND} for each round")
        width = 32 if length < NARROW_BELOW else 64
        self._word = word = np.uint32 if width == 32 else np.uint64
        all_ones = (1 << width) - 1
        bits = max(1, length.bit_length() // 2)
        self._length, self._a = word(length), word(-(-length >> bits))  # rounded up
        self._bits, self._mask = word(bits), word((1 << bits) - 1)
        self._half, self._to_bits = word(width // 2), word(width - bits)
        self._mix = word(_MIX & all_ones)
        key = [part & all_ones for part in key]
        self._key = [(word(add), word(times | 1)) for add, times in zip(key[::2], key[1::2], strict=True)]

    def __call__(self, indices: Indices) -> Indices:
        """Where each of `indices`, shape (n,), all in [0, length), goes: shape (n,)."""
        return self._permute(len(indices), lambda begin, end: indices[begin:end].astype(self._word))

    def span(self, start: int, stop: int) -> Indices:
        """The same for the indices from `start` to before `stop`, in less memory."""
        return self._permute(stop - start, lambda begin, end: np.arange(start + begin, start + end, dtype=self._word))

    def _permute(self, count: int, words_of: Callable[[int, int], Words]) -> Indices:
        found, block = np.empty(count, np.int64), _SCRATCH // self._word().itemsize
        scratch = np.empty((4, min(block, count)), self._word)
        for begin in range(0, count, block):
            words = words_of(begin, min(begin + block, count))
            self._walk(words, scratch)
            found[begin : begin + block] = words
        return found

    def _walk(self, words: Words, scratch: Words) -> None:
        """Encipher until inside, in place: what starts inside comes back inside, since it is on a cycle (method 2)."""
        self._encipher(words, scratch)
        outside = np.flatnonzero(words >= self._length)
        while outside.size:
            again = words[outside]
            self._encipher(again, scratch)
            words[outside] = again
            outside = outside[again >= self._length]

    def _encipher(self, words: Words, scratch: Words) -> None:
        left, right, hashed, spare = scratch[:, : len(words)]
        np.right_shift(words, self._bits, out=left)
        np.bitwise_and(words, self._mask, out=right)
        for number, (add, times) in enumerate(self._key):
            self._hash(right if number % 2 == 0 else left, add, times, hashed, spare)
            if number % 2 == 0:
                self._add_to_left(left, hashed, spare)
            else:
                np.right_shift(hashed, self._to_bits, out=hashed)
                np.bitwise_xor(right, hashed, out=right)
        np.left_shift(left, self._bits, out=left)
        np.bitwise_or(left, right, out=words)

    def _add_to_left(self, left: Words, hashed: Words, spare: Words) -> None:
        np.right_shift(hashed, self._half, out=hashed)  # half a word ...
        np.multiply(hashed, self._a, out=hashed)
        np.right_shift(hashed, self._half, out=hashed)  # ... to a number below a
        np.add(left, hashed, out=left)
        np.subtract(left, self._a, out=spare)  # wraps to something huge where the sum is below a
        np.minimum(left, spare, out=left)

    def _hash(self, half: Words, add: Word, times: Word, hashed: Words, spare: Words) -> None:
        """A keyed hash of `half` in `hashed`, whose high bits are the good ones; overwrites `spare`."""
        np.add(half, add, out=hashed)
        np.multiply(hashed, times, out=hashed)
        np.right_shift(hashed, self._half, out=spare)
        np.bitwise_xor(hashed, spare, out=hashed)
        np.multiply(hashed, self._mix, out=hashed)
