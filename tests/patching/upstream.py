"""Source trees as those of Megatron-LM and ChatLearn are built; their structure, and none of their text."""

from pathlib import Path

PRETRAIN = '''# Licence of somebody.

"""Pretrain a model."""

# Before any heavy import.
import time
START = time.time()

import torch
from megatron.core import mpu
from megatron.training import get_args, inprocess_restart, pretrain, print_rank_0


def forward_step(data_iterator, model):
\treturn model(next(data_iterator)), print_rank_0


if __name__ == "__main__":
    pretrain, store = inprocess_restart.maybe_wrap(pretrain)
    pretrain(None, mpu, get_args, forward_step, store=store)
'''
TRAIN_RL = """# Licence of somebody.

import os
from functools import partial

from megatron.training import get_args, pretrain
from megatron.training.arguments import parse_and_validate_args

if __name__ == "__main__":
    args = parse_and_validate_args(extra_args_provider=partial(os.getenv), args_defaults={})
    pretrain(None, get_args, args)
"""
TRAINING = '''"""Megatron's own, which starts nothing by itself."""

from .utils import print_rank_0


def pretrain(*args):
    print_rank_0(args)
'''
BASE_TRAINER = '''# Licence of somebody.
# ====
"""Base."""

from megatron.training.checkpointing import load_checkpoint
from chatlearn import MegatronModule


class BaseTrainer(MegatronModule):
    def setup_model_and_optimizer(self):
        load_checkpoint(self.model, None, None)
'''
POLICY_TRAINER = '''# Licence of somebody.
# ====
"""policy trainer"""

from megatron.training import get_args
from .base_trainer import BaseTrainer


class PolicyTrainer(BaseTrainer):
    def setup(self):
        super().setup(get_args())
'''
INFERENCE = '''"""A model that is never trained."""

from megatron.training.checkpointing import load_checkpoint
from chatlearn import MegatronModule


class PolicyInference(MegatronModule):
    def setup(self):
        load_checkpoint(self.model, None, None)
'''
FSDP_TRAINER = '''"""Without Megatron."""

from chatlearn import FSDPModule


class PolicyTrainer(FSDPModule):
    def train_step(self, data):
        pass
'''
ENTRY = '''# Licence of somebody.
# ====
"""entry file"""

from examples.megatron.models import PolicyInference, PolicyTrainer

import chatlearn
from chatlearn import RLHFEngine

if __name__ == "__main__":
    chatlearn.init()
    engine = RLHFEngine(PolicyInference("policy"), PolicyTrainer("ppo_policy"))
    engine.learn()
'''
FSDP_ENTRY = (
    ENTRY.replace("examples.megatron", "examples.fsdp")
    .replace("PolicyInference, ", "")
    .replace('PolicyInference("policy"), ', "")
)

MEGATRON = {
    "pretrain_gpt.py": PRETRAIN,
    "pretrain_bert.py": PRETRAIN,
    "train_rl.py": TRAIN_RL,
    "megatron/training/training.py": TRAINING,
    "megatron/training/__init__.py": "from .training import pretrain\n",
    "tests/unit_tests/test_pretrain.py": PRETRAIN,
    "setup.py": "import setuptools\n",
}
CHATLEARN = {
    "examples/megatron/models/__init__.py": "from .policy_trainer import PolicyTrainer\n",
    "examples/megatron/models/base_trainer.py": BASE_TRAINER,
    "examples/megatron/models/policy_trainer.py": POLICY_TRAINER,
    "examples/megatron/models/policy_inference.py": INFERENCE,
    "examples/megatron/entry/train_rlhf.py": ENTRY,
    "examples/fsdp/models/policy_trainer.py": FSDP_TRAINER,
    "examples/fsdp/entry/train_grpo.py": FSDP_ENTRY,
}
PATCHED_OF_MEGATRON = ("pretrain_bert.py", "pretrain_gpt.py", "train_rl.py")
PATCHED_OF_CHATLEARN = {
    "examples/megatron/entry/train_rlhf.py": "engine",
    "examples/megatron/models/base_trainer.py": "trainer",
    "examples/megatron/models/policy_trainer.py": "trainer",
}


def make(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return root
