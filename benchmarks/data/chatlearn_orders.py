"""Orders as ChatLearn has them, in a few lines of ours: in file order (1.0), and a list of the epoch (its main)."""

import json
from collections.abc import Iterator
from itertools import chain

import torch
from order import BATCH, SEED, Batch, Order


class ChatLearnOrder(Order):
    position = 0

    def __init__(self, size: int) -> None:
        self.size = size

    def state_bytes(self) -> int:
        return len(json.dumps({"consumed_samples": self.position}))


class ChatLearnEpisodes(ChatLearnOrder):
    def batches(self, position: int) -> Iterator[Batch]:
        self.position, batch = position, []
        while True:
            for row in chain(range(self.position % self.size, self.size), range(self.position % self.size)):
                batch.append(row)
                self.position += 1
                if len(batch) == BATCH:
                    yield batch
                    batch = []


class ChatLearnMain(ChatLearnOrder):
    def batches(self, position: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(SEED + position // self.size)
        rows = torch.randperm(self.size, generator=generator).tolist()
        repeated = []
        for row in rows:
            repeated.extend([row] * 1)  # prompts are repeated for each of their samples
        for begin in range(position % self.size, self.size - BATCH + 1, BATCH):
            self.position = position - position % self.size + begin
            yield [(0, row) for row in repeated[begin : begin + BATCH]]
