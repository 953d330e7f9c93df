"""Make the reference and reward checkpoints of the tiny model, with random weights from the seed."""

import argparse
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from megatron.core import mpu, tensor_parallel
from megatron.core.enums import ModelType
from megatron.training.checkpointing import save_checkpoint
from megatron.training.training import get_model, preprocess_common_state_dict

import megatron_resume

from .roles import FROZEN, arguments_of, fresh_arguments, frozen_folder, provider_of

_SEED_OFFSET = {"reference": 101, "reward": 202}


def seed_everything(seed: int) -> None:
    """Seed every generator as Megatron does at start: differently per pipeline and tensor rank."""
    seed += 100 * mpu.get_pipeline_model_parallel_rank()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    tensor_parallel.model_parallel_cuda_manual_seed(seed)


def make_absent_checkpoints(base: argparse.Namespace) -> None:
    """Make those of the reference and reward checkpoints that do not exist. Every rank calls this.

    Only where no --reference-load or --reward-load names another folder.

    A folder appears under its name only when it is complete; an existing one is used as it is. The
    random generators are left changed.
    """
    for role in FROZEN:
        folder = Path(frozen_folder(base, role))
        if folder.parent != Path(base.save):
            continue  # somebody's own model: when it is absent, the name is wrong
        if _agree(not folder.exists()):
            _make(base, role, folder)


def _make(base: argparse.Namespace, role: str, folder: Path) -> None:
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    _on_first_rank(lambda: shutil.rmtree(unfinished, ignore_errors=True))
    args = megatron_resume.role_args(role, fresh_arguments(base, role))
    args.save, args.load = str(unfinished), None
    args.no_save_optim = args.no_save_rng = True
    with arguments_of(args):
        seed_everything(base.seed + _SEED_OFFSET[role])
        model = get_model(provider_of(role), ModelType.encoder_or_decoder, wrap_with_ddp=False)
        # A release has no iteration: Megatron loads it as weights to start from.
        save_checkpoint(
            0,
            model,
            None,
            None,
            num_floating_point_operations_so_far=0,
            release=True,
            preprocess_common_state_dict_fn=preprocess_common_state_dict,
        )
    _on_first_rank(lambda: _publish(unfinished, folder))


def _publish(unfinished: Path, folder: Path) -> None:
    for path in [*unfinished.rglob("*"), unfinished]:
        _fsync(path)
    unfinished.rename(folder)
    _fsync(folder.parent)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _on_first_rank(action: Callable[[], None]) -> None:
    if torch.distributed.get_rank() == 0:
        action()
    torch.distributed.barrier()


def _agree(answer: bool) -> bool:
    """Rank 0's answer on every rank: the others may see a shared file system later."""
    agreed = [answer]
    torch.distributed.broadcast_object_list(agreed, src=0)
    return agreed[0]
