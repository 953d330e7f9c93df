"""A stock pretraining entry: Megatron's own `pretrain()` loop, not one word about resuming in it.

Appends `iteration loss tokens` of every step to the file LOSSES, as hexadecimal floats, and gets SIGTERM, as from
a scheduler, in the iteration SIGTERM_AT. With LOOKS_AT_PROGRESS set, rank 0 looks at it, to print it. With GATE set
to `iteration:file` it stands still in that iteration until the file is there, and dies where that says so.
"""

import os
import signal
import time
from functools import partial
from importlib import import_module
from pathlib import Path

import torch
from megatron.core.enums import ModelType
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.training import get_args, pretrain
from megatron.training.argument_utils import pretrain_cfg_container_from_args
from megatron.training.arguments import core_transformer_config_from_args, parse_and_validate_args


class Rows(torch.utils.data.Dataset):
    """Row i of the data, for any i."""

    def __len__(self):
        return 10_000

    def __getitem__(self, row):
        args = get_args()
        tokens = torch.randint(0, 255, (args.seq_length + 1,), generator=torch.Generator().manual_seed(row))
        return {"row": torch.tensor(row), "tokens": tokens}


def datasets(samples, vp_stage=None):
    return Rows(), None, None


datasets.is_distributed = True


def model_provider(pre_process=True, post_process=True, vp_stage=None, config=None, pg_collection=None):
    args = get_args()
    return GPTModel(
        core_transformer_config_from_args(args),
        get_gpt_layer_local_spec(normalization=args.normalization),
        vocab_size=args.padded_vocab_size,
        max_sequence_length=args.max_position_embeddings,
        pre_process=pre_process,
        post_process=post_process,
        position_embedding_type=args.position_embedding_type,
    )


def stand_at_gate(iteration):
    where, _, file = os.environ.get("GATE", "").partition(":")
    if where == str(iteration):
        Path(f"{file}.waits").touch()
        while not Path(file).exists():
            time.sleep(0.05)
        if Path(file).read_text() == "die":
            os.kill(os.getpid(), signal.SIGKILL)


def loss_func(rows, losses):
    mean = losses.float().mean()
    if os.environ.get("SIGTERM_AT") == str(get_args().curr_iteration + 1):
        os.kill(os.getpid(), signal.SIGTERM)
    stand_at_gate(get_args().curr_iteration + 1)
    if torch.distributed.get_rank() == 0:
        if "LOOKS_AT_PROGRESS" in os.environ:
            print(import_module("megatron_resume").progress())
        with open(os.environ["LOSSES"], "a") as file:
            file.write(f"{get_args().curr_iteration + 1} {mean.item().hex()} {rows.tolist()}\n")
    return mean, {"lm loss": torch.stack([mean.detach(), torch.ones(())])}


def forward_step(data_iterator, model):
    batch = next(data_iterator)
    tokens, labels = batch["tokens"][:, :-1], batch["tokens"][:, 1:].contiguous()
    positions = torch.arange(tokens.shape[1]).expand_as(tokens)
    return model(tokens, positions, None, labels=labels), partial(loss_func, batch["row"])


if __name__ == "__main__":
    args = parse_and_validate_args()
    pretrain(
        pretrain_cfg_container_from_args(args), datasets, ModelType.encoder_or_decoder, forward_step, model_provider
    )
