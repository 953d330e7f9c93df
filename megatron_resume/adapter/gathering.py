"""What every rank hands in at a save: its random states and the state of its data loaders. Rank 0 gets them all."""

from typing import Any

import msgspec

from ..checkpoint.arrays import Arrays
from ..checkpoint.records import Rng
from . import background, loaders, ranks, rng


class OfRank(msgspec.Struct, frozen=True):
    """What one rank hands in. Kept as it came: training waits until it is captured."""

    random: rng.Captured
    loaders: loaders.Captured

    def pack(self) -> bytes:
        return msgspec.msgpack.encode((self.random.pack(), self.loaders.pack()))


class Gathered(msgspec.Struct, frozen=True):
    """That of every rank, as rank 0 gets it; there may be thousands, so the writer unpacks them."""

    mine: OfRank
    store: Any  # holds that of the others
    key: str
    unused: tuple[str, ...]  # keys of earlier ones that were not unpacked
    layout: dict[str, int]

    def unpack(self) -> tuple[Rng, dict[str, Any], Arrays]:
        """Random states and tracked loaders for the data checkpoint, and the arrays of both.

        Raises:
            DamagedError: Something of a rank did not arrive.
        """
        packed = [self.mine.pack(), *ranks.collect(self.store, self.key, self.layout["ranks"])]
        for key in self.unused:  # afterwards: a rank that handed this in has handed in what was before it
            ranks.drop(self.store, key, self.layout["ranks"])
        parts = [msgspec.msgpack.decode(part, type=tuple[bytes, bytes]) for part in packed]
        random_states, arrays = rng.merge([random for random, _ in parts], self.layout)
        tracked, loader_arrays = loaders.merge([states for _, states in parts])
        return random_states, tracked, {**arrays, **loader_arrays}


def keys_of(states: Gathered | None) -> tuple[str, ...]:
    """All keys that are still in the store where `states` are not unpacked, or not to their end."""
    return () if states is None else (*states.unused, states.key)


def gather(key: str, unused: tuple[str, ...], of_loaders: loaders.Captured) -> Gathered | None:
    """Capture the random states of this rank, and hand them to rank 0 with `of_loaders`. Call on every rank.

    Args:
        key: the same on every rank, and another each time.
        unused: keys of earlier ones that rank 0 did not ask for; they are deleted with this one.
    """
    mine, store = OfRank(rng.capture(), of_loaders), ranks.store()
    if ranks.rank() == 0:
        return Gathered(mine, store, key, unused, rng.layout())
    if store is not None:
        background.submit(lambda: ranks.post(store, key, mine.pack()))
    return None
