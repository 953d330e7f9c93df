"""Ours: positions are computed, so to begin anywhere is to compute there."""

import json
from collections.abc import Iterator

from order import BATCH, EPISODE, SEED, Batch, Order

from megatron_resume.data import EpisodeSampler


class Ours(Order):
    def __init__(self, size: int) -> None:
        self.sampler = EpisodeSampler(size, samples_per_episode=EPISODE, seed=SEED)

    def batches(self, position: int) -> Iterator[Batch]:
        self.sampler.seek(position)
        return iter(self.sampler.for_rank(0, 1, BATCH))

    def state_bytes(self) -> int:
        return len(json.dumps(self.sampler.state_dict()))


class OursMixed(Ours):
    def __init__(self, size: int) -> None:
        sizes = (size // 2, size // 4, size - size // 2 - size // 4)
        self.sampler = EpisodeSampler(sizes, weights=(5, 3, 2), samples_per_episode=EPISODE, seed=SEED)
