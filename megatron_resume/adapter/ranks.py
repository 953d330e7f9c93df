"""The ranks of this run: which one this is, and the few things they tell each other."""

import os
from typing import Any

import torch
import torch.distributed as dist

from ..errors import DamagedError


def rank() -> int:
    """Global rank, as Megatron reads it before torch.distributed is up."""
    return int(os.environ.get("RANK", "0"))


def connected() -> bool:
    """Whether torch.distributed is up and there is more than one rank."""
    return bool(dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)


def barrier() -> None:
    if connected():
        dist.barrier()


def device() -> torch.device:
    """Where tensors must lie for the default process group."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


def from_rank_0(numbers: list[int]) -> list[int]:
    """What rank 0 passed. Call on every rank, with the same count of numbers (64 bit)."""
    if not connected():
        return numbers
    tensor = torch.tensor(numbers, dtype=torch.int64, device=device())
    dist.broadcast(tensor, src=0)
    return [int(number) for number in tensor.cpu()]


def everywhere(condition: bool) -> bool:
    """Whether `condition` holds on every rank. Call on every rank."""
    if not connected():
        return condition
    tensor = torch.tensor([int(condition)], dtype=torch.int64, device=device())
    dist.all_reduce(tensor, op=dist.ReduceOp.MIN)
    return bool(tensor.item())


def largest(number: int) -> int:
    """The largest of the numbers of all ranks. Call on every rank."""
    if not connected():
        return number
    tensor = torch.tensor([number], dtype=torch.int64, device=device())
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return int(tensor.item())


class Gathering:
    """The bytes of every rank on their way to rank 0, while the caller goes on. Make one on every rank.

    Args:
        data: of this rank.
        room: bytes per rank, the same on every rank; `data` that is longer does not arrive.
    """

    def __init__(self, data: bytes, room: int):
        self._work = None
        if not connected():
            self._parts: list[Any] = [_padded(data, len(data))]
            return
        self._mine = _padded(data, room).to(device())  # alive until it is sent
        self._parts = []
        if rank() == 0:  # one allocation for what may be thousands
            self._parts = list(self._mine.new_empty(dist.get_world_size(), len(self._mine)).unbind())
        self._work = dist.gather(self._mine, self._parts or None, dst=0, async_op=True)

    def wait(self) -> None:
        """Return when it has left this rank and, on rank 0, all of it is there."""
        if self._work is not None:
            self._work.wait()

    def parts(self) -> list[bytes]:
        """In rank order, on rank 0.

        Raises:
            DamagedError: Those of a rank were longer than the room for them.
        """
        self.wait()
        return [_unpadded(part.cpu().numpy().tobytes(), number) for number, part in enumerate(self._parts)]


_SIZE = 8  # bytes before the data, that count them


def _padded(data: bytes, room: int) -> Any:
    return torch.frombuffer(
        bytearray(len(data).to_bytes(_SIZE, "little") + data[:room].ljust(room, b"\0")), dtype=torch.uint8
    )


def _unpadded(padded: bytes, number: int) -> bytes:
    size = int.from_bytes(padded[:_SIZE], "little")
    if size > len(padded) - _SIZE:
        raise DamagedError(f"the random states of rank {number} grew from under {len(padded)} to {size} bytes")
    return padded[_SIZE : _SIZE + size]
