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
CHATLEARN_INIT = '''# Licence of somebody.
# ====
"""init"""

import importlib

from chatlearn.launcher.initialize import init
from chatlearn.models.megatron_module import MegatronModule
from chatlearn.runtime.engine import RLHFEngine
'''
TRAINER = '''"""policy trainer"""

from megatron.training import get_args
from chatlearn import MegatronModule


class PolicyTrainer(MegatronModule):
    def train_step(self):
        get_args()
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
    "chatlearn/__init__.py": CHATLEARN_INIT,
    "chatlearn/models/__init__.py": "from .megatron_module import MegatronModule\n",
    "examples/megatron/models/policy_trainer.py": TRAINER,
    "examples/megatron/entry/train_rlhf.py": ENTRY,
    "examples/megatron/entry/train_sft.py": PRETRAIN,
}
PATCHED_OF_MEGATRON = ("pretrain_bert.py", "pretrain_gpt.py", "train_rl.py")
PATCHED_OF_CHATLEARN = {"chatlearn/__init__.py": "chatlearn", "examples/megatron/entry/train_sft.py": "pretrain"}


def make(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return root
