"""Mosaic Streaming's shuffles of an epoch, as arrays of sample ids."""

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from order import BATCH, SEED, Batch, Order

SHARD = 1 << 16  # samples


def make_packages() -> None:
    """`streaming.base.shuffle` without what `streaming` imports: the clients of six clouds."""
    found = importlib.util.find_spec("streaming")
    assert found is not None
    assert found.origin is not None
    for name in ("streaming", "streaming.base", "streaming.base.shuffle"):
        package = ModuleType(name)
        package.__path__ = [str(Path(found.origin).parent.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package


make_packages()
py1e = importlib.import_module("streaming.base.shuffle.py1e")
py1s = importlib.import_module("streaming.base.shuffle.py1s")


class MosaicOrder(Order):
    shuffle: Callable[..., NDArray]
    position = 0

    def __init__(self, size: int) -> None:
        self.shards = np.full(-(-size // SHARD), SHARD, np.int64)
        self.shards[-1] -= self.shards.sum() - size

    def batches(self, position: int) -> Iterator[Batch]:
        ids = type(self).shuffle(self.shards, num_canonical_nodes=1, seed=SEED, epoch=0)
        for begin in range(position, len(ids) - BATCH + 1, BATCH):
            self.position = begin
            yield ids[begin : begin + BATCH]

    def state_bytes(self) -> int:
        seed = {"shuffle_seed": SEED, "initial_physical_nodes": 1, "num_canonical_nodes": 1}
        return len(json.dumps({"epoch": 0, "sample_in_epoch": self.position, **seed}))


class MosaicPy1s(MosaicOrder):
    shuffle = staticmethod(py1s.get_shuffle_py1s)


class MosaicPy1e(MosaicOrder):
    shuffle = staticmethod(py1e.get_shuffle_py1e)
