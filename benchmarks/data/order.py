"""What is measured of every order of `size` samples: that it is made, begun anywhere, and drawn from in batches."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from numpy.typing import NDArray

BATCH = 1024  # indices
EPISODE = 4096  # samples, where an order has episodes
SEED = 1234

Batch = NDArray | Sequence[int] | Sequence[tuple[int, int]]


class Order(ABC):
    """A sampler of ours or of others, as a job would use it. Made by one process, of one rank."""

    @abstractmethod
    def __init__(self, size: int) -> None: ...

    @abstractmethod
    def batches(self, position: int) -> Iterator[Batch]:
        """Batches from `position`, a multiple of BATCH; called once. They may end with the epoch."""

    @abstractmethod
    def state_bytes(self) -> int:
        """What a checkpoint must hold to begin here again, after a batch was drawn."""
