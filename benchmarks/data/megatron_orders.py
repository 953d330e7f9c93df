"""Megatron's samplers of pretraining, which get the samples consumed from its checkpoint."""

import json
import warnings
from collections.abc import Iterator

from order import BATCH, Batch, Order

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Transformer Engine and Apex are not needed here
    from megatron.training.datasets.data_samplers import MegatronPretrainingRandomSampler, MegatronPretrainingSampler


class MegatronOrder(Order):
    position = 0

    def __init__(self, size: int) -> None:
        self.size = size

    def state_bytes(self) -> int:
        return len(json.dumps({"consumed_train_samples": self.position})) - len("consumed_train_samples")


class MegatronSequential(MegatronOrder):
    def batches(self, position: int) -> Iterator[Batch]:
        self.position = position
        return iter(MegatronPretrainingSampler(self.size, position, BATCH, 0, 1))


class MegatronRandom(MegatronOrder):
    def batches(self, position: int) -> Iterator[Batch]:
        self.position = position
        return iter(MegatronPretrainingRandomSampler(None, self.size, position, BATCH, 0, 1, data_sharding=True))
