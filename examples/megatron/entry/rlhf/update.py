"""One PPO iteration of a role, by Megatron's own `train_step`."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.rerun_state_machine import RerunDataIterator
from megatron.training import training
from torch import Tensor

from . import ppo
from .experience import Experience, local_part
from .forward import model_inputs, next_tokens
from .roles import RoleModel, arguments_of

Loss = Callable[[Tensor, Experience], Tensor]


def train_policy(built: RoleModel, minibatch: Experience) -> float:
    """Train policy on one global batch; its loss, on every rank."""
    clip = built.args.clip_ratio

    def loss(output: Tensor, batch: Experience) -> Tensor:
        return ppo.policy_loss(-output, batch.logprobs, batch.advantages, batch.mask, clip)

    return _train(built, minibatch, loss, labels=True)


def train_value(built: RoleModel, minibatch: Experience) -> float:
    """Train value on one global batch; its loss, on every rank."""
    clip = built.args.clip_value

    def loss(output: Tensor, batch: Experience) -> Tensor:
        return ppo.value_loss(output.squeeze(-1), batch.values, batch.returns, batch.mask, clip)

    return _train(built, minibatch, loss, labels=False)


def _train(built: RoleModel, minibatch: Experience, loss: Loss, labels: bool) -> float:
    args = built.args
    built.train_mode(True)
    batches = RerunDataIterator(local_part(minibatch).split(args.micro_batch_size))
    args.curr_iteration = args.iteration
    with arguments_of(args):
        reduced, *_ = training.train_step(
            partial(_forward_step, loss=loss, labels=labels),
            batches,
            built.model,
            built.optimizer,
            built.scheduler,
            built.config,
            get_forward_backward_func(),
            **_iteration_argument(args.iteration),
        )
    args.iteration += 1
    args.consumed_train_samples += args.global_batch_size
    return _on_every_rank(reduced.get("loss"))


def _iteration_argument(iteration: int) -> dict[str, int]:
    # Megatron 0.17 has no such parameter, later versions need it.
    wanted = "iteration" in inspect.signature(training.train_step).parameters
    return {"iteration": iteration} if wanted else {}


def _forward_step(batches: Iterator[Experience], model: Any, *, loss: Loss, labels: bool) -> tuple[Tensor, Any]:
    batch = next(batches)
    output = model(*model_inputs(batch.tokens), labels=next_tokens(batch.tokens) if labels else None)
    return output, partial(_loss, batch=batch, loss=loss)


def _loss(output: Tensor, *, batch: Experience, loss: Loss) -> tuple[Tensor, dict[str, Tensor]]:
    result = loss(output.float(), batch)
    # Sum and count: Megatron adds both over microbatches and data-parallel ranks, then divides.
    return result, {"loss": torch.stack([result.detach(), torch.ones_like(result)])}


def _on_every_rank(loss: Tensor | None) -> float:
    """The last rank's loss: it is on the last pipeline stage, the only one that knows it."""
    value = torch.zeros(1, device=torch.cuda.current_device())
    if loss is not None:
        value.copy_(loss)
    torch.distributed.broadcast(value, src=torch.distributed.get_world_size() - 1)
    return float(value.item())
