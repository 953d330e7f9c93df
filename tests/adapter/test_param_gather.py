"""A model whose weights cannot be brought up to date before a save is refused by the name of its class."""

import pytest
import torch
from megatron.core.distributed import TorchFullyShardedDataParallel
from megatron.core.distributed.fsdp.mcore_fsdp_adapter import FullyShardedDataParallel
from megatron.core.distributed.fsdp.src.megatron_fsdp.megatron_fsdp import MegatronFSDP
from torch.distributed.fsdp import FSDPModule

from megatron_resume.adapter import param_gather
from megatron_resume.errors import ConfigError


class ShardedLinear(FSDPModule, torch.nn.Linear):
    """What torch's fully_shard makes of a Linear."""


def unbuilt(kind: type[torch.nn.Module]) -> torch.nn.Module:
    """One that needs no GPU, since nothing was sharded."""
    module: torch.nn.Module = object.__new__(kind)
    torch.nn.Module.__init__(module)
    return module


class Wrapper(torch.nn.Module):
    """What a script may put around it."""

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        self.module = module


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (TorchFullyShardedDataParallel, "TorchFullyShardedDataParallel"),
        (FullyShardedDataParallel, "FullyShardedDataParallel"),
        (MegatronFSDP, "MegatronFSDP"),
        (ShardedLinear, "FSDPModule"),
    ],
)
def test_sharded_weights_are_refused_by_the_name_of_their_class(kind: type[torch.nn.Module], name: str) -> None:
    for model in ([Wrapper(unbuilt(kind))], unbuilt(kind)):
        with pytest.raises(ConfigError, match=f"policy is wrapped in {name}, which is not supported"):
            param_gather.check("policy", model)


@pytest.mark.parametrize("model", [None, [], torch.nn.Linear(1, 1), [Wrapper(torch.nn.Linear(1, 1))]])
def test_every_other_model_is_saved_as_it_is(model: object) -> None:
    param_gather.check("policy", model)
    param_gather.bring_up_to_date({"model": model, "optimizer": None})
