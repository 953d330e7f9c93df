"""The ranks of this run: which one this is, and the few things they tell each other."""

import functools
import logging
import os
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from ..errors import DamagedError

logger = logging.getLogger("megatron_resume")

COLLECT_S = 60.0  # how long rank 0 waits for what every rank has sent before its save was finished


def rank() -> int:
    """Global rank, as Megatron reads it before torch.distributed is up."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """How many ranks there are."""
    return dist.get_world_size() if connected() else 1


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


def first_of_all(text: str) -> str:
    """What the first rank says that says anything; empty where none does. Call on every rank."""
    if not connected():
        return text
    first = torch.tensor([dist.get_rank() if text else dist.get_world_size()], dtype=torch.int64, device=device())
    dist.all_reduce(first, op=dist.ReduceOp.MIN)
    source = int(first.item())
    if source == dist.get_world_size():
        return ""
    said: list[str] = [text]
    dist.broadcast_object_list(said, src=source, device=device())
    return said[0]


@functools.cache
def _minimum() -> Any:
    options = dist.AllreduceOptions()
    options.reduceOp = dist.ReduceOp.MIN
    return options


def everywhere_soon(condition: bool) -> Callable[[], bool]:
    """The same, asked now and answered when the returned function is called: nobody waits in between."""
    if not connected():
        return lambda: condition
    tensor = torch.tensor([int(condition)], dtype=torch.int64, device=device())
    # Of the group itself: the function of torch.distributed looks at a tensor for longer than this takes.
    work = dist.distributed_c10d._get_default_group().allreduce([tensor], _minimum())

    def answer() -> bool:
        work.wait()
        return bool(tensor.item())

    return answer


def data_parallel() -> tuple[int, int]:
    """The data-parallel rank of this process, and how many there are."""
    from megatron.core import parallel_state as mpu

    if mpu.model_parallel_is_initialized():
        return mpu.get_data_parallel_rank(), mpu.get_data_parallel_world_size()
    return (dist.get_rank(), dist.get_world_size()) if connected() else (0, 1)


def num_that_sum_gradients() -> int:
    """How many ranks hold the same weights and see other samples, or other parts of a sequence."""
    from megatron.core import parallel_state as mpu

    return mpu.get_data_parallel_world_size(with_context_parallel=True) if mpu.model_parallel_is_initialized() else 1


def store() -> Any:
    """Where the ranks of this run can leave bytes for each other; None for a single one.

    The store by which they found each other. Unlike a collective it makes nobody wait, and asks nobody to come.
    """
    if not connected():
        return None
    return dist.distributed_c10d._get_default_store()


def post(store: Any, key: str, data: bytes) -> None:
    """Leave `data` of this rank in `store`, for rank 0 to `collect`."""
    try:
        store.set(f"{key}/{rank()}", data)
    except RuntimeError as error:  # rank 0 will say what came of it
        logger.warning("rank %d cannot hand in its states: %s", rank(), error)


def collect(store: Any, key: str, ranks: int) -> list[bytes]:
    """On rank 0: what each rank after it left under `key`, in rank order. It is deleted there.

    Raises:
        DamagedError: That of a rank did not come in time.
    """
    keys = _keys(key, ranks)
    deadline = time.monotonic() + COLLECT_S
    # Asked again and again, since a wait in the store would keep the training thread out of it.
    while keys and not store.check(keys):
        if time.monotonic() > deadline:
            missing = next(rank for rank, key in enumerate(keys, start=1) if not store.check([key]))
            raise DamagedError(f"rank {missing} did not hand in its states within {COLLECT_S:.0f} s")
        time.sleep(0.01)
    found = [store.get(key) for key in keys]
    drop(store, key, ranks)
    return found


def drop(store: Any, key: str, ranks: int) -> None:
    """On rank 0: delete what other ranks left under `key`."""
    for each in _keys(key, ranks):
        store.delete_key(each)


def _keys(key: str, ranks: int) -> list[str]:
    return [f"{key}/{rank}" for rank in range(1, ranks)]
