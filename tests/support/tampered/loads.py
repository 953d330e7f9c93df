"""Models that are not loaded, or that are not looked for before."""

import threading
import types

from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedTensor
from megatron.core.dist_checkpointing.strategies.torch import TorchDistLoadShardedStrategy
from megatron.training import checkpointing, get_args
from rlhf import roles, start

from megatron_resume.adapter.writer import Writer


def does_not_look_for_checkpoints():
    roles._refuse_absent_checkpoint = lambda *args: None


def forgets_to_load_value():
    build = roles.build_and_load

    def build_without_loading(base, role):
        setup = roles.setup_model_and_optimizer
        if role == "value":
            roles.setup_model_and_optimizer = lambda **named: without_load(setup, **named)
        try:
            return build(base, role)
        finally:
            roles.setup_model_and_optimizer = setup

    def without_load(setup, **arguments):
        get_args().load, get_args().pretrained_checkpoint = None, None
        return setup(**arguments)

    start.build_and_load = build_without_loading


def loads_nothing_and_commits_at_the_end():
    """Models begin with weights of the script's own, and a slow disk leaves every commit to the process's end."""
    setup, wait, write = roles.setup_model_and_optimizer, Writer.wait, Writer._write
    leaving = threading.Event()

    def setup_without_load(**arguments):
        get_args().load = get_args().pretrained_checkpoint = None
        return setup(**arguments)

    roles.setup_model_and_optimizer = setup_without_load
    Writer.wait = lambda self: (leaving.set(), wait(self))[1]
    Writer._write = lambda self, *save: (leaving.wait(), write(self, *save))[1]


def leaves_weights_unread():
    _leave_unread(lambda key: not key.startswith("optimizer"))


def leaves_part_of_the_optimizer_unread():
    _leave_unread(lambda key: key.startswith("optimizer.state.exp_avg_sq"))


def _leave_unread(is_left):
    """As a reader that skips what it does not know: these tensors are what they were before the load."""
    load = TorchDistLoadShardedStrategy.load

    def load_the_rest(self, sharded_state_dict, *args, **kwargs):
        if not get_args().load or get_args().resume_role in ("reference", "reward"):
            return load(self, sharded_state_dict, *args, **kwargs)
        tensors = [each for each in nested_values(sharded_state_dict) if isinstance(each, ShardedTensor)]
        left = [(each.data.detach(), each.data.detach().clone()) for each in tensors if is_left(each.key)]
        loaded = load(self, sharded_state_dict, *args, **kwargs)
        for data, before in left:
            data.copy_(before)
        return loaded

    TorchDistLoadShardedStrategy.load = load_the_rest


def loads_by_a_function_of_its_own():
    load = dist_checkpointing.load
    own = types.FunctionType(load.__code__, load.__globals__, "own", load.__defaults__)
    checkpointing.dist_checkpointing = types.SimpleNamespace(**{**vars(dist_checkpointing), "load": own})
