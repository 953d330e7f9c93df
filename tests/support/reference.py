"""The order as one would write it down who had time and memory: sample by sample, in whole numbers of Python."""

from collections.abc import Iterator, Sequence

from megatron_resume.data.epochs import sorted_orders
from megatron_resume.data.history import Change, Rules
from megatron_resume.data.keys import key_words
from megatron_resume.data.mixture import Mixture

_MIX = 0x9FB21C651E98DF25


class Cipher:
    """The permutation of `megatron_resume.data.permutation`, forwards and back, on one number at a time."""

    def __init__(self, length: int, key: Sequence[int]) -> None:
        self.length = length
        self.width = 32 if length < 1 << 32 else 64
        self.bits = max(1, length.bit_length() // 2)
        self.a = -(-length // 2**self.bits)
        self.rounds = list(zip(key[::2], key[1::2], strict=True))

    def row(self, index: int) -> int:
        index = self._forwards(index)
        while index >= self.length:
            index = self._forwards(index)
        return index

    def index(self, row: int) -> int:
        row = self._back(row)
        while row >= self.length:
            row = self._back(row)
        return row

    def _forwards(self, number: int) -> int:
        left, right = divmod(number, 2**self.bits)
        for at, (add, times) in enumerate(self.rounds):
            if at % 2 == 0:
                left = (left + self._of_left(right, add, times)) % self.a
            else:
                right ^= self._of_right(left, add, times)
        return left * 2**self.bits + right

    def _back(self, number: int) -> int:
        left, right = divmod(number, 2**self.bits)
        for at, (add, times) in reversed(list(enumerate(self.rounds))):
            if at % 2 == 0:
                left = (left - self._of_left(right, add, times)) % self.a
            else:
                right ^= self._of_right(left, add, times)
        return left * 2**self.bits + right

    def _of_left(self, right: int, add: int, times: int) -> int:
        half = self.width // 2
        return (self._hash(right, add, times) >> half) * self.a >> half

    def _of_right(self, left: int, add: int, times: int) -> int:
        return self._hash(left, add, times) >> (self.width - self.bits)

    def _hash(self, half: int, add: int, times: int) -> int:
        product = (half + add) * (times | 1) % 2**self.width
        return (product ^ product >> self.width // 2) * _MIX % 2**self.width


def walk(rules: Rules, history: Sequence[Change]) -> Iterator[tuple[int, int]]:
    """(dataset, row) of position 0, 1, 2 ...: epochs as lists that are used up, for datasets of few rows."""
    decks: list[list[int]] = []
    epochs: list[int] = []
    slots: tuple[int, ...] = ()
    began, position = 0, 0
    changes = list(history)
    while True:
        while changes and changes[0].at == position:
            setup = changes.pop(0).setup
            decks += [[] for _ in setup.sizes[len(decks) :]]
            epochs += [0] * (len(decks) - len(epochs))
            if setup.slots() != slots:
                slots, began = setup.slots(), position
                mixture = Mixture(slots)
        dataset = int(mixture.datasets(position - began, 1)[0])
        if not decks[dataset]:
            decks[dataset] = _deck(rules, dataset, epochs[dataset], setup.sizes[dataset])
            if rules.drop_last:
                del decks[dataset][len(decks[dataset]) // setup.samples_per_episode * setup.samples_per_episode :]
            epochs[dataset] += 1
        yield dataset, decks[dataset].pop(0)
        position += 1


def _deck(rules: Rules, dataset: int, epoch: int, rows: int) -> list[int]:
    if not rules.shuffle:
        return list(range(rows))
    found: list[int] = sorted_orders(rows, [key_words(rules.seed, dataset, epoch, 12)])[0].tolist()
    return found
