"""The ranks of this run: which one this is, and the few things they tell each other."""

import os

import torch
import torch.distributed as dist

Tensor = torch.Tensor


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


def gather_bytes(data: bytes) -> list[bytes] | None:
    """The bytes of every rank in rank order, on rank 0; None elsewhere. Call on every rank."""
    if not connected():
        return [data]
    longest = torch.tensor([len(data)], dtype=torch.int64, device=device())
    dist.all_reduce(longest, op=dist.ReduceOp.MAX)
    padded = len(data).to_bytes(8, "little") + data.ljust(int(longest.item()), b"\0")
    mine = torch.frombuffer(bytearray(padded), dtype=torch.uint8).to(device())
    parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())] if dist.get_rank() == 0 else None
    dist.gather(mine, parts, dst=0)
    if parts is None:
        return None
    return [_unpadded(part.cpu().numpy().tobytes()) for part in parts]


def _unpadded(padded: bytes) -> bytes:
    return padded[8 : 8 + int.from_bytes(padded[:8], "little")]
