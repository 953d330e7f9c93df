"""Forward passes without gradients or dropout, through Megatron's pipeline schedule."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from megatron.core import mpu
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor

from .roles import RoleModel, arguments_of

Read = Callable[[Tensor], Tensor]


def logprobs(built: RoleModel, tokens: Tensor, batch_size: int) -> Tensor:
    """Log probability at position j of token j+1, [batch, sequence]; the last position means nothing."""
    # Megatron's own cross entropy is right for a vocabulary that is split over tensor-parallel ranks.
    return _forward(built, tokens, batch_size, lambda loss: -loss, labels=True)


def scores(built: RoleModel, tokens: Tensor, batch_size: int) -> Tensor:
    """What the scalar head says at each position, [batch, sequence]."""
    return _forward(built, tokens, batch_size, lambda output: output.squeeze(-1))


def next_token_logits(built: RoleModel, tokens: Tensor, positions: Tensor, batch_size: int) -> Tensor:
    """Logits over the whole vocabulary of what follows each row's position, [batch, vocabulary]."""
    chunks = zip(tokens.split(batch_size), positions.split(batch_size), strict=True)
    return torch.cat([_forward(built, rows, len(rows), partial(_at, where)) for rows, where in chunks])


def _at(positions: Tensor, logits: Tensor) -> Tensor:
    rows = torch.arange(len(positions), device=logits.device)
    return _gather_vocabulary(logits[rows, positions])


def _gather_vocabulary(logits: Tensor) -> Tensor:
    group = mpu.get_tensor_model_parallel_group()
    parts = [torch.empty_like(logits) for _ in range(group.size())]
    torch.distributed.all_gather(parts, logits.contiguous(), group=group)
    return torch.cat(parts, dim=-1)


def model_inputs(tokens: Tensor) -> tuple[Tensor, Tensor, None]:
    """Token ids, positions, and no attention mask: Megatron's is causal, which is all that is needed."""
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    return tokens, positions.unsqueeze(0).expand_as(tokens), None


def next_tokens(tokens: Tensor) -> Tensor:
    """The label of each position: the token after it."""
    return tokens.roll(-1, dims=1)


def _forward(built: RoleModel, tokens: Tensor, batch_size: int, read: Read, labels: bool = False) -> Tensor:
    """`read` of the model's output for all rows, in microbatches, on every pipeline stage."""
    built.train_mode(False)
    with torch.no_grad():
        return torch.cat([_one_batch(built, rows, read, labels) for rows in tokens.split(batch_size)])


def _one_batch(built: RoleModel, rows: Tensor, read: Read, labels: bool) -> Tensor:
    def step(batches: Iterator[Tensor], model: Any) -> tuple[Tensor, Any]:
        batch = next(batches)
        output = model(*model_inputs(batch), labels=next_tokens(batch) if labels else None)
        return output, lambda out, non_loss_data: read(out.float()).contiguous()

    with arguments_of(built.args):
        results = get_forward_backward_func()(
            forward_step_func=step,
            data_iterator=iter([rows]),
            model=built.model,
            num_microbatches=1,
            seq_length=rows.shape[1],
            micro_batch_size=len(rows),
            forward_only=True,
            collect_non_loss_data=True,
        )
    return _from_last_stage(results[0] if results else None)


def _from_last_stage(result: Tensor | None) -> Tensor:
    """The last pipeline stage's result on all stages; only that one has it."""
    if mpu.get_pipeline_model_parallel_world_size() == 1:
        assert result is not None
        return result
    group, source = mpu.get_pipeline_model_parallel_group(), mpu.get_pipeline_model_parallel_last_rank()
    shape = [tuple(result.shape) if result is not None else None]
    torch.distributed.broadcast_object_list(shape, src=source, group=group)
    if result is None:
        result = torch.empty(shape[0], device=torch.cuda.current_device())
    torch.distributed.broadcast(result, src=source, group=group)
    return result
