"""Train steps that are a loop's own, that sum no gradients, or that take long."""

import os
import time
from pathlib import Path
from types import SimpleNamespace

import megatron.training.training as training
from rlhf import roles, update

from megatron_resume.adapter import api, progress_lines
from megatron_resume.checkpoint.failures import STACKS, life_of, life_path

from .loads import forgets_to_load_value
from .loop_order import save_before_advance


def own_train_step():
    """A loop with a train step of its own, in which no hook is."""
    update.training = SimpleNamespace(train_step=training.train_step.__wrapped__)


def own_train_step_saves_before_advance():
    own_train_step()
    save_before_advance()


def own_train_step_forgets_to_load_value():
    own_train_step()
    forgets_to_load_value()


def sums_no_gradients():
    """As in a loop that calls Megatron's train_step and does not know what Megatron's train() sets before."""
    roles._prepare_training = lambda built: None


def steps_take_longer_than_lines_are_apart():
    """Long enough for a line of progress each. With `STUCK` the watch has found a rank stuck after the second."""
    progress_lines.EVERY_S = 0.05
    train_step, calls = training.train_step, []

    def slow(*args, **kwargs):
        calls.append(1)
        time.sleep(0.06)
        if len(calls) == 3 and "STUCK" in os.environ:
            root = Path(os.environ["STUCK"])
            (life_path(root, api.progress().attempt, life_of(os.environ)) / STACKS).mkdir(exist_ok=True)
        return train_step(*args, **kwargs)

    training.train_step = slow
