"""Fill what Megatron misses where there is no Transformer Engine, no Apex and no GPU.

`fill()` imports Megatron; call it after `stand_in.install()`. Each function below says which gap it
fills. None of them touches saving or loading of models as such.
"""

import logging
import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.managers import SyncManager
from typing import Any

import torch
import torch.multiprocessing

from .parents import end_with_parent

_filled = False


def fill() -> None:
    """Fill every gap once; a second call does nothing."""
    global _filled
    if _filled:
        return
    _filled = True
    adam_can_load_before_its_first_step()
    distributed_optimizer_loads_without_grad()
    dataloaders_keep_the_rng()
    one_generator_is_no_mistake()


def adam_can_load_before_its_first_step() -> None:
    """Let the distributed optimizer load into torch's Adam, which has no state before its first step.

    With Transformer Engine's or Apex's Adam Megatron needs neither half of this. Afterwards the step
    count is put back per parameter: Megatron keeps it in the parameter groups, and torch's Adam would
    restart its bias correction and drift from the second step on.
    """
    import megatron.core.optimizer.distrib_optimizer as module

    if getattr(module, "HAVE_APEX_OR_TE", True):
        return
    optimizer = module.DistributedOptimizer
    state_dict, load_state_dict = optimizer.state_dict, optimizer.load_state_dict

    def state_dict_with_zeros(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.optimizer is not None and not self.optimizer.state:
            for parameter in _parameters(self.optimizer):
                self.optimizer.state[parameter].update(
                    step=torch.tensor(0.0),
                    exp_avg=torch.zeros_like(parameter.data),
                    exp_avg_sq=torch.zeros_like(parameter.data),
                )
        return state_dict(self, *args, **kwargs)

    def load_state_dict_with_steps(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = load_state_dict(self, *args, **kwargs)
        for group in self.optimizer.param_groups:
            step = group.pop("step", None)
            for parameter in group["params"] if step is not None else ():
                self.optimizer.state[parameter]["step"] = torch.tensor(float(step))
        return result

    optimizer.state_dict = state_dict_with_zeros
    optimizer.load_state_dict = load_state_dict_with_steps


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def distributed_optimizer_loads_without_grad() -> None:
    """In fp32 the distributed optimizer copies into views of leaves; Megatron forgets no_grad there."""
    import megatron.core.optimizer.distrib_optimizer as module

    name = "_set_main_param_and_optimizer_states"
    inner = getattr(module.DistributedOptimizer, name, None)
    if inner is not None:
        setattr(module.DistributedOptimizer, name, torch.no_grad()(inner))


def dataloaders_keep_the_rng() -> None:
    """A new DataLoader iterator draws its seed from the CPU's generator, which here is dropout's too.

    On a GPU these are two generators, so a resumed run does not feel the extra draw.
    """
    import torch.utils.data.dataloader as module

    for iterator in (module._SingleProcessDataLoaderIter, module._MultiProcessingDataLoaderIter):
        iterator.__init__ = _keeping_rng(iterator.__init__)


def _keeping_rng(inner: Callable[..., None]) -> Callable[..., None]:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        state = torch.get_rng_state()
        inner(self, *args, **kwargs)
        torch.set_rng_state(state)

    return __init__


def one_generator_is_no_mistake() -> None:
    """Megatron warns at each dropout that the CPU's generator moved; here it is the GPU's, and should."""
    wanted = "CPU RNG state changed within GPU RNG context"
    logger = logging.getLogger("megatron.core.tensor_parallel.random")
    logger.addFilter(lambda record: wanted not in record.getMessage())


def fork_the_result_queue() -> None:
    """Give torch_dist's writers a result queue whose process is forked, not spawned. Call in each rank.

    A spawned one imports torch and Megatron again, which costs each rank seconds at its first save;
    forking is safe here because there is no CUDA context. The process ends with its rank.
    """
    import megatron.core.dist_checkpointing.strategies.filesystem_async as module

    if getattr(module, "_results_queue", module) is not None:  # made already, or Megatron has none of this name
        return
    manager = SyncManager(ctx=multiprocessing.get_context("fork"))
    manager.start(_end_with_the_rank)
    module._results_queue = manager.Queue()


def _end_with_the_rank() -> None:
    end_with_parent()  # a rank that is killed cannot shut it down
    # torchrun sends SIGTERM to all processes of a rank, which still needs this one to save. (Where Megatron makes it
    # itself, in a save, megatron_resume sees to that.)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def fork_every_helper() -> None:
    """Let Megatron fork its persistent checkpoint worker, whatever start method it asks for."""
    fork = multiprocessing.get_context("fork")
    torch.multiprocessing.get_context = lambda method=None: fork
