"""The four Megatron models of the job in one process, each with its own arguments."""

import argparse
import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from megatron.core.distributed import finalize_model_grads
from megatron.core.enums import ModelType
from megatron.core.models.gpt import GPTModel, gpt_layer_specs
from megatron.core.utils import get_model_config
from megatron.training import get_args
from megatron.training.arguments import core_transformer_config_from_args
from megatron.training.global_vars import set_args
from megatron.training.training import setup_model_and_optimizer

import megatron_resume

from .refuse import refuse
from .scalar_head import ScalarHead

TRAINED = ("policy", "value")
FROZEN = ("reference", "reward")
WITH_SCALAR_HEAD = ("value", "reward")
STARTS_FROM = {"policy": "reference", "value": "reward"}


@dataclass
class RoleModel:
    """One role: its Megatron arguments and what Megatron built and loaded with them."""

    role: str
    args: argparse.Namespace
    model: list[torch.nn.Module]
    optimizer: Any = None
    scheduler: Any = None

    @property
    def config(self) -> Any:
        return get_model_config(self.model[0])

    def train_mode(self, on: bool) -> None:
        """Switch dropout on or off."""
        for chunk in self.model:
            chunk.train(on)


@contextmanager
def arguments_of(args: argparse.Namespace) -> Iterator[None]:
    """Let Megatron see `args` as its global arguments meanwhile."""
    before = get_args()
    set_args(args)
    try:
        yield
    finally:
        set_args(before)


def frozen_folder(base: argparse.Namespace, role: str) -> str:
    """Where the checkpoint of reference or reward lies."""
    given = {"reference": base.reference_load, "reward": base.reward_load}[role]
    return given or str(Path(base.save) / role)


def fresh_arguments(base: argparse.Namespace, role: str) -> argparse.Namespace:
    """The arguments with which `role` starts from its frozen model's weights, not from a resume point."""
    args = copy.copy(base)
    source = STARTS_FROM.get(role, role)
    args.load = frozen_folder(base, source)
    args.finetune = args.no_load_optim = args.no_load_rng = True
    if role in TRAINED:
        args.save = str(Path(base.save) / role)
    else:
        args.save = None
        args.skip_train = True  # Megatron then builds neither optimizer nor gradient buffers
        args.async_save = False
    if role == "value" and base.value_lr is not None:
        args.lr = base.value_lr
    return args


def build_and_load(base: argparse.Namespace, role: str) -> RoleModel:
    """Build the model of `role` and load it, from its resume point where there is one.

    Every rank calls this. The RNG is left as the load left it.
    """
    args = megatron_resume.role_args(role, fresh_arguments(base, role))
    _refuse_absent_checkpoint(base, STARTS_FROM.get(role, role), args.load)
    with arguments_of(args):
        model, optimizer, scheduler = setup_model_and_optimizer(  # by name: 0.19 has them the other way round
            model_type=ModelType.encoder_or_decoder, model_provider_func=provider_of(role)
        )
    built = RoleModel(role, args, model, optimizer, scheduler)
    if role in TRAINED:
        _prepare_training(built)
    else:
        for parameter in model[0].parameters():
            parameter.requires_grad_(False)
    return built


def _refuse_absent_checkpoint(base: argparse.Namespace, source: str, folder: str) -> None:
    # Megatron would go on with random weights and a warning. Resume points were checked by others.
    if folder != frozen_folder(base, source):
        return
    if not (Path(folder) / "latest_checkpointed_iteration.txt").is_file():
        refuse(
            f"{folder}: no Megatron checkpoint of the {source} model; name one with --{source}-load, "
            "or make one of random weights with --make-checkpoints"
        )


def _prepare_training(built: RoleModel) -> None:
    # What Megatron's own train() sets up before its loop. Without the second line gradients are not
    # summed over data-parallel ranks, and nobody says so.
    built.config.grad_scale_func = built.optimizer.scale_loss
    built.config.finalize_model_grads_func = finalize_model_grads
    if built.args.overlap_grad_reduce:
        built.config.no_sync_func = built.model[0].no_sync


def provider_of(role: str) -> Any:
    """The function by which Megatron builds the model of `role`."""

    def provider(pre_process: bool = True, post_process: bool = True, **_: Any) -> GPTModel:
        return build_model(role in WITH_SCALAR_HEAD, pre_process, post_process)

    return provider


def build_model(scalar_head: bool, pre_process: bool, post_process: bool) -> GPTModel:
    """A GPT model from Megatron's arguments, with a scalar head in place of the vocabulary if asked for."""
    args = get_args()
    config = core_transformer_config_from_args(args)
    model = GPTModel(
        config,
        _layer_spec(args),
        vocab_size=args.padded_vocab_size,
        max_sequence_length=args.max_position_embeddings,
        pre_process=pre_process,
        post_process=post_process,
        share_embeddings_and_output_weights=not args.untie_embeddings_and_output_weights,
        position_embedding_type=args.position_embedding_type,
        rotary_percent=args.rotary_percent,
        rotary_base=args.rotary_base,
    )
    if scalar_head and post_process:
        model.output_layer = ScalarHead(config)
    return model


def _layer_spec(args: argparse.Namespace) -> Any:
    if args.transformer_impl == "transformer_engine":
        return gpt_layer_specs.get_gpt_layer_with_transformer_engine_spec()
    return gpt_layer_specs.get_gpt_layer_local_spec(normalization=args.normalization)
