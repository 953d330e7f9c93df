"""The output layer of value and reward: one number per token in place of a vocabulary."""

import torch
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor


class ScalarHead(MegatronModule):
    """A linear map to one score, the same on every tensor-parallel rank.

    It stands in for GPTModel's `output_layer`: same call, same `sequence_parallel` switch. The hidden
    states come out of an RMS norm, so weights of variance 1/hidden give scores of variance 1.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config=config)
        self.sequence_parallel = config.sequence_parallel
        self.weight = torch.nn.Parameter(
            torch.empty(1, config.hidden_size, device=torch.cuda.current_device(), dtype=config.params_dtype)
        )
        torch.nn.init.normal_(self.weight, std=config.hidden_size**-0.5)

    def forward(
        self, hidden: Tensor, weight: Tensor | None = None, runtime_gather_output: bool | None = None
    ) -> tuple[Tensor, None]:
        """Scores [sequence, batch, 1] of hidden states [sequence, batch, hidden]; no bias, hence None."""
        if self.sequence_parallel:
            # Every rank computes all scores, so the gradient is split again, not summed.
            hidden = gather_from_sequence_parallel_region(hidden, tensor_parallel_output_grad=False)
        return torch.nn.functional.linear(hidden, self.weight), None
