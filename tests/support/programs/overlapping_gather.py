"""overlapping_gather.py [optimizer-step]: two chunks of a model whose weights are gathered in the next forward pass.

Each rank prints, before and after the weights are brought up to date as for a save, the digest of what it holds, then
that of two more steps. With `optimizer-step` the gather of the first chunk has begun in the optimizer's step.
"""

import hashlib
import os
import sys

import torch
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.transformer import TransformerConfig

from megatron_resume.adapter import param_gather

WITH_STEP = "optimizer-step" in sys.argv
WITHOUT = "without" in sys.argv  # bringing anything up to date


class Inside(torch.nn.Module):
    """What a script may put around DDP."""

    def __init__(self, module):
        super().__init__()
        self.module = module


def digest(chunks):
    found = hashlib.sha256()
    for chunk in chunks:
        for weight in chunk.parameters():
            found.update(weight.detach().contiguous().numpy().tobytes())
    return found.hexdigest()[:8]


def main():
    torch.distributed.init_process_group("gloo")
    parallel_state.initialize_model_parallel()
    rank = torch.distributed.get_rank()
    torch.manual_seed(1)
    config = TransformerConfig(num_layers=1, hidden_size=8, num_attention_heads=1)
    ddp = DistributedDataParallelConfig(
        use_distributed_optimizer=True, overlap_grad_reduce=True, overlap_param_gather=True
    )
    chunks = [DistributedDataParallel(config, ddp, torch.nn.Linear(8, 8)) for _ in range(2)]
    options = {"use_distributed_optimizer": True, "overlap_param_gather_with_optimizer_step": WITH_STEP}
    if "overlap_param_gather" in OptimizerConfig.__dataclass_fields__:  # from 0.14 on
        options["overlap_param_gather"] = True
    adam = OptimizerConfig(optimizer="adam", lr=0.1, **options)
    optimizer = get_megatron_optimizer(adam, chunks)
    for chunk in chunks:
        chunk.overlap_param_gather_with_optimizer_step = WITH_STEP and chunk is chunks[0]

    def train():
        for chunk in chunks:
            chunk.zero_grad_buffer()
        optimizer.zero_grad()
        out = torch.ones(2, 8) * (rank + 1)
        for chunk in chunks:
            out = chunk(out)
        out.square().sum().backward()
        for chunk in chunks:
            chunk.finish_grad_sync()
        optimizer.step()

    def bring_up_to_date():
        if not WITHOUT:
            param_gather.bring_up_to_date({"model": [Inside(chunks[0]), chunks[1]], "optimizer": optimizer})

    train()
    before = digest(chunks)
    bring_up_to_date()
    saved = digest(chunks)
    assert all(chunk.remove_forward_pre_hook_handles for chunk in chunks)
    train()
    train()
    for chunk in chunks:
        chunk.disable_forward_pre_hook(param_sync=True)  # as Megatron's own loop
    assert not any(chunk.remove_forward_pre_hook_handles for chunk in chunks)
    end = digest(chunks)
    bring_up_to_date()  # does nothing
    assert digest(chunks) == end
    os.write(1, f"rank {rank}: {before} {saved} {end}\n".encode())  # in one piece


if __name__ == "__main__":
    main()
