"""What every rank hands in at a save: its random states, and what it tracks. Rank 0 gets all of it."""

from typing import Any

import msgspec

from ..checkpoint.arrays import Arrays
from ..checkpoint.records import Rng
from . import background, loaders, ranks, rng, sharing
from .tracked import Tracked


class OfRank(msgspec.Struct, frozen=True):
    """What one rank hands in. Kept as it came: training waits until it is captured."""

    random: rng.Captured
    loaders: loaders.Captured
    shared: sharing.Captured  # of rank 0 nothing: it is in the data checkpoint

    def pack(self) -> bytes:
        return msgspec.msgpack.encode((self.random.pack(), self.loaders.pack(), self.shared.digests()))


class Gathered(msgspec.Struct, frozen=True):
    """That of every rank, as rank 0 gets it; there may be thousands, so the writer unpacks them."""

    mine: OfRank
    store: Any  # holds that of the others
    key: str
    unused: tuple[str, ...]  # keys of earlier ones that were not unpacked
    layout: dict[str, int]

    def unpack(self, shared: sharing.Captured) -> tuple[Rng, dict[str, Any], Arrays]:
        """Random states and what ranks have their own of, for the data checkpoint, and the arrays of both.

        Args:
            shared: what rank 0 saves for all.

        Raises:
            DamagedError: Something of a rank did not arrive.
            DivergedError: A rank holds another state of what all share.
        """
        packed = [self.mine.pack(), *ranks.collect(self.store, self.key, self.layout["ranks"])]
        for key in self.unused:  # afterwards: a rank that handed this in has handed in what was before it
            ranks.drop(self.store, key, self.layout["ranks"])
        parts = [msgspec.msgpack.decode(part, type=tuple[bytes, bytes, dict[str, bytes]]) for part in packed]
        sharing.check(shared, {rank: digests for rank, (_, _, digests) in enumerate(parts) if rank})
        random_states, arrays = rng.merge([random for random, _, _ in parts], self.layout)
        tracked, loader_arrays = loaders.merge([states for _, states, _ in parts], self.layout)
        return random_states, tracked, {**arrays, **loader_arrays}


def keys_of(states: Gathered | None) -> tuple[str, ...]:
    """All keys that are still in the store where `states` are not unpacked, or not to their end."""
    return () if states is None else (*states.unused, states.key)


def gather(key: str, unused: tuple[str, ...], tracked: Tracked) -> Gathered | None:
    """Capture what belongs to this rank, and hand it to rank 0. Call on every rank.

    Args:
        key: the same on every rank, and another each time.
        unused: keys of earlier ones that rank 0 did not ask for; they are deleted with this one.
    """
    is_first = ranks.rank() == 0
    shared = sharing.Captured({}, {}) if is_first else tracked.capture_shared()
    mine, store = OfRank(rng.capture(), tracked.capture_of_rank(), shared), ranks.store()
    if is_first:
        return Gathered(mine, store, key, unused, rng.layout())
    if store is not None:
        background.submit(lambda: ranks.post(store, key, mine.pack()))
    return None
