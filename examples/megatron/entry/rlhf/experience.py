"""What an episode leaves to train on: the same tensors on every rank, cut into minibatches."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from megatron.core import mpu
from torch import Tensor


@dataclass(frozen=True)
class Experience:
    """Samples of one episode; row i belongs to the prompt at `positions[i]`.

    Arrays per token are [samples, sequence]; entry j is about the choice of token j+1.
    """

    positions: Tensor  # [samples], the prompts' positions in the run
    prompt_rows: Tensor  # [samples], their rows in the file
    tokens: Tensor  # prompt, response, padding
    mask: Tensor  # 1 where a token of the response is chosen
    score: Tensor  # [samples], the reward model's
    kl: Tensor  # [samples], policy against reference, summed over the response
    logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor

    def __len__(self) -> int:
        return len(self.positions)

    def rows(self, index: Tensor) -> "Experience":
        """The samples with these indices, in this order."""
        return Experience(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def split(self, size: int) -> Iterator["Experience"]:
        """Consecutive parts of `size` samples."""
        for index in torch.arange(len(self), device=self.positions.device).split(size):
            yield self.rows(index)


def gather_over_data_parallel(local: Tensor) -> Tensor:
    """All data-parallel ranks' rows in rank order, on every rank."""
    group = mpu.get_data_parallel_group()
    parts = [torch.empty_like(local) for _ in range(group.size())]
    torch.distributed.all_gather(parts, local.contiguous(), group=group)
    return torch.cat(parts)


def minibatches(experience: Experience, size: int, epochs: int) -> Iterator[Experience]:
    """Every sample `epochs` times, in minibatches of `size`, shuffled by numpy's global generator."""
    for _ in range(epochs):
        order = torch.from_numpy(np.random.permutation(len(experience)))
        order = order.to(experience.positions.device)
        # Megatron seeds pipeline stages differently; all must cut the same minibatches.
        torch.distributed.broadcast(order, src=0)
        for index in order.split(size):
            yield experience.rows(index)


def local_part(minibatch: Experience) -> Experience:
    """This data-parallel rank's share of a minibatch."""
    share = len(minibatch) // mpu.get_data_parallel_world_size()
    start = share * mpu.get_data_parallel_rank()
    return minibatch.rows(torch.arange(start, start + share, device=minibatch.positions.device))
