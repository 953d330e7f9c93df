"""torch's RandomSampler, and torchdata's loader that can save its state."""

import pickle
from collections.abc import Iterator
from itertools import islice

import torch
from order import BATCH, SEED, Batch, Order
from torch.utils.data import BatchSampler, RandomSampler
from torchdata.stateful_dataloader import StatefulDataLoader


class TorchRandomSampler(Order):
    def __init__(self, size: int) -> None:
        self.generator = torch.Generator().manual_seed(SEED)
        self.begun = self.generator.get_state()
        sampler = RandomSampler(range(size), generator=self.generator)
        self.sampler = BatchSampler(sampler, BATCH, drop_last=False)

    def batches(self, position: int) -> Iterator[Batch]:
        return islice(self.sampler, position // BATCH, None)

    def state_bytes(self) -> int:
        return self.begun.nbytes + 8  # with the position


class Rows:
    """A data set whose samples are their indices, so that nothing but the order is measured."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, row: int) -> int:
        return row

    def __getitems__(self, rows: list[int]) -> list[int]:
        return rows


def as_it_is(batch: list[int]) -> list[int]:
    return batch


class TorchdataLoader(Order):
    def __init__(self, size: int) -> None:
        self.size = size
        self.loader = self._loader(size)

    def batches(self, position: int) -> Iterator[Batch]:
        if position:
            self.loader.load_state_dict(self._state(position))
        return iter(self.loader)

    def state_bytes(self) -> int:
        return len(pickle.dumps(self.loader.state_dict()))

    def _state(self, position: int) -> dict:
        """What it would have saved there: the state of a short loader after one batch, with other numbers."""
        short = self._loader(2 * BATCH)
        next(iter(short))
        state = short.state_dict()
        state["_num_yielded"] = state["_sampler_iter_yielded"] = position // BATCH
        state["_sampler_iter_state"]["samples_yielded"] = position
        state["_sampler_iter_state"]["sampler_iter_state"]["yielded"] = position
        return state

    def _loader(self, size: int) -> StatefulDataLoader:
        generator = torch.Generator().manual_seed(SEED)
        return StatefulDataLoader(Rows(size), BATCH, shuffle=True, collate_fn=as_it_is, generator=generator)
