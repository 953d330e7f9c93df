"""A stock pretraining entry: Megatron's own `pretrain()` loop, not one word about resuming in it.

Its data are as of SFT where Megatron was started with --sft: the second half of each row is trained on.
Appends `iteration loss tokens` of every step to the file LOSSES, as hexadecimal floats, and gets SIGTERM, as from
a scheduler, in the iteration SIGTERM_AT. With LOOKS_AT_PROGRESS set, rank 0 looks at it, to print it. With GATE set
to `iteration:file` it stands still in that iteration until the file is there, and dies where that says so. With
FAULT_AT set it fails in that iteration, and is restarted in its process. With REFERENCE set, the weights of a
reference are loaded in the way of Megatron's RL, and their digest is appended to that file. With COLLECTS set to a
number, it collects what it trains on in the way of Megatron's RL: before the train step of each so manieth iteration,
drawn from Python's, numpy's and torch's generators. Its saves and its end are those of RL: os._exit(0), since threads
of an inference server would keep it from leaving. With EVALUATED set, there are data to evaluate on, and nothing is
trained. With FREEZES set the embedding is not trained.
"""

import hashlib
import os
import random
import signal
import sys
import tempfile
import time
from functools import partial
from importlib import import_module
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from megatron.core import rerun_state_machine
from megatron.core.enums import ModelType
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.training import arguments, get_args, pretrain, training
from megatron.training.arguments import core_transformer_config_from_args
from megatron.training.checkpointing import load_checkpoint


class FaultError(Exception):
    """What goes wrong in the iteration FAULT_AT."""


class Rows(torch.utils.data.Dataset):
    """Row i of the data, for any i."""

    def __len__(self):
        return 10_000

    def __getitem__(self, row):
        args = get_args()
        tokens = torch.randint(0, 255, (args.seq_length + 1,), generator=torch.Generator().manual_seed(row))
        return {"row": torch.tensor(row), "tokens": tokens}


def datasets(samples, vp_stage=None):
    if get_args().dataloader_type == "external":
        return cycle(torch.utils.data.DataLoader(Rows(), get_args().micro_batch_size)), None, None
    return Rows(), Rows() if "EVALUATED" in os.environ else None, None


datasets.is_distributed = True


def model_provider(pre_process=True, post_process=True, vp_stage=None, config=None, pg_collection=None):
    args = get_args()
    model = GPTModel(
        core_transformer_config_from_args(args),
        get_gpt_layer_local_spec(
            num_experts=args.num_experts, qk_layernorm=args.qk_layernorm, normalization=args.normalization
        ),
        vocab_size=args.padded_vocab_size,
        max_sequence_length=args.max_position_embeddings,
        pre_process=pre_process,
        post_process=post_process,
        position_embedding_type=args.position_embedding_type,
    )
    if "FREEZES" in os.environ and pre_process:
        model.embedding.requires_grad_(False)
    return model


def stand_at_gate(iteration):
    where, _, file = os.environ.get("GATE", "").partition(":")
    if where == str(iteration):
        Path(f"{file}.waits").touch()
        while not Path(file).exists():
            time.sleep(0.05)
        if Path(file).read_text() == "die":
            os.kill(os.getpid(), signal.SIGKILL)


def loss_func(rows, losses):
    if getattr(get_args(), "sft", False):
        losses = losses[:, losses.shape[1] // 2 :]
    mean = losses.float().mean()
    if "EVALUATED" in os.environ:
        return mean, {"lm loss": torch.stack([mean.detach(), torch.ones(())])}
    if os.environ.get("SIGTERM_AT") == str(get_args().curr_iteration + 1):
        os.kill(os.getpid(), signal.SIGTERM)
    if os.environ.get("FAULT_AT") == str(get_args().curr_iteration + 1):
        os.environ["FAULT_AT"] = "once"
        raise FaultError
    stand_at_gate(get_args().curr_iteration + 1)
    if torch.distributed.get_rank() == 0:
        if "LOOKS_AT_PROGRESS" in os.environ:
            print(import_module("megatron_resume").progress())
        with open(os.environ["LOSSES"], "a") as file:
            file.write(f"{get_args().curr_iteration + 1} {mean.item().hex()} {rows.tolist()}\n")
    return mean, {"lm loss": torch.stack([mean.detach(), torch.ones(())])}


def forward_step(data_iterator, model):
    batch = next(data_iterator)
    batch["tokens"] = (batch["tokens"] + collected[-1]) % 255 if collected else batch["tokens"]
    tokens, labels = batch["tokens"][:, :-1], batch["tokens"][:, 1:].contiguous()
    positions = torch.arange(tokens.shape[1]).expand_as(tokens)
    return model(tokens, positions, None, labels=labels), partial(loss_func, batch["row"])


def digest(model):
    found = hashlib.sha256()
    for _, weight in sorted(model[0].named_parameters()):
        found.update(weight.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def restarted_in_process(train):
    """As NVRx's wrapper does on a GPU: after the fault all is taken down, and training begun again."""
    try:
        train()
    except FaultError:
        training.destroy_global_state()
        rerun_state_machine.destroy_rerun_state_machine()
        torch.distributed.destroy_process_group()
        print("pretrain() is called again", flush=True)
        train()


def load_a_reference_first(train):
    """Megatron's train(), before which RL's order of loads: the reference into the model, then policy back."""

    def train_after_loads(forward_step_func, model, *rest, **more):
        args = get_args()
        before = digest(model)
        load, args.load = args.load, None
        finetune, args.finetune = args.finetune, True
        no_load_optim, args.no_load_optim = args.no_load_optim, True
        load_checkpoint(model, None, None)
        reference = digest(model)
        args.load, args.finetune = load, finetune
        load_checkpoint(model, None, None)
        args.no_load_optim = no_load_optim
        assert digest(model) == before, "policy is not what it was before the reference was loaded"
        if torch.distributed.get_rank() == 0:
            with open(os.environ["REFERENCE"], "a") as file:
                file.write(f"{reference}\n")
        return train(forward_step_func, model, *rest, **more)

    return train_after_loads


collected = []


def collect_first(train_step):
    """Megatron's train_step(), before which a collection is made where one is due."""

    def collect_and_train(*args, **kwargs):
        if get_args().curr_iteration % int(os.environ["COLLECTS"]) == 0 or not collected:
            drawn = random.randrange(255), np.random.randint(255), int(torch.randint(255, ()))
            collected.append(sum(drawn))
            rl_state.last_collection_iteration = get_args().curr_iteration
        return train_step(*args, **kwargs)

    return collect_and_train


rl_state = SimpleNamespace()
RL = """
import os

def get_rl_runtime_state():
    return state

def rl_inference_interface_shutdown():
    os._exit(0)
"""


def have_rl(folder):
    """A module megatron.rl.rl_utils, which no wheel has, with what a loop calls of it."""
    (folder / "megatron" / "rl").mkdir(parents=True)
    (folder / "megatron" / "rl" / "rl_utils.py").write_text(RL)
    sys.path.append(str(folder))
    rl_utils = import_module("megatron.rl.rl_utils")
    rl_utils.state = rl_state
    training.ft_integration.shutdown = rl_utils.rl_inference_interface_shutdown  # RL calls it there


def save_as_rl(save_checkpoint):
    """Megatron's save_checkpoint(), called by a loop that makes COLLECTS steps on each collection."""

    def save(*args, **kwargs):
        margs = get_args()
        margs.grpo_prompts_per_step, margs.grpo_group_size = margs.global_batch_size, 1
        margs.perform_rl_step, margs.grpo_iterations = True, int(os.environ["COLLECTS"])
        try:
            return save_checkpoint(*args, **kwargs)
        finally:
            margs.perform_rl_step = False  # the rest of Megatron's RL is in no wheel

    return save


def main():
    if "REFERENCE" in os.environ:
        training.train = load_a_reference_first(training.train)
    if "COLLECTS" in os.environ:
        training.train_step = collect_first(training.train_step)
        training.save_checkpoint = save_as_rl(training.save_checkpoint)
        with tempfile.TemporaryDirectory() as folder:
            have_rl(Path(folder))
    if "FAULT_AT" in os.environ:
        restarted_in_process(train_once)
    else:
        train_once()


def train_once():
    parsed = ()
    if hasattr(arguments, "parse_and_validate_args"):  # from 0.18 on
        from megatron.training.argument_utils import pretrain_cfg_container_from_args

        parsed = (pretrain_cfg_container_from_args(arguments.parse_and_validate_args()),)
    pretrain(
        *parsed,
        train_valid_test_dataset_provider=datasets,
        model_type=ModelType.encoder_or_decoder,
        forward_step_func=forward_step,
        model_provider=model_provider,
    )


if __name__ == "__main__":
    main()
