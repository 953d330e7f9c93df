"""drawn_rollouts.py CHECKOUT/train_rl.py ARGS...: Megatron's GRPO, unedited, whose rollouts are drawn, not generated.

Generating takes a GPU; the rest of RL runs on the stand-in for one. Rank 0 draws tokens and rewards from Python's,
numpy's and torch's generators, as environments and sampling do, and prints a digest of each collection. SIGTERM comes,
as from a scheduler, while rollouts are collected for the iteration SIGTERM_AT.
"""

import contextlib
import hashlib
import importlib.util
import os
import random
import signal
import sys
import types
from pathlib import Path

import numpy as np
import torch

ONLY_TO_GENERATE = ("openai", "fastapi", "uvicorn", "datasets", "h2", "hypercorn", "quart", "zmq", "msgpack", "einops")


def pretend_to_have(package):
    """A package without which megatron.rl cannot be imported, and of which drawn rollouts use nothing."""

    class Package(types.ModuleType):
        __path__ = ()

        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {})

    sys.modules[package] = Package(package)


def draw_rollouts(model, inference_model, optimizer, n_prompts, samples_per_group):
    """What get_environment_rollouts returns: the same on every rank."""
    groups = [None] * n_prompts
    if torch.distributed.get_rank() == 0:
        groups = [[draw_one() for _ in range(samples_per_group)] for _ in range(n_prompts)]
        said = hashlib.sha256(repr(groups).encode()).hexdigest()[:12]
        os.write(1, f"collected before iteration {arguments().curr_iteration + 1}: {said}\n".encode())  # in one piece
    if os.environ.get("SIGTERM_AT") == str(arguments().curr_iteration + 1):
        os.kill(os.getpid(), signal.SIGTERM)
    torch.distributed.broadcast_object_list(groups, src=0)
    collected = [grouped([rollout(*drawn) for drawn in group]) for group in groups]
    return (collected, {}) if hasattr(rl_state(), "request_ledger") else collected  # from 0.20 on, with no records


def rl_state():
    from megatron.rl.rl_utils import get_rl_runtime_state

    return get_rl_runtime_state()


def arguments():
    from megatron.training import get_args

    return get_args()


def draw_one():
    length = arguments().seq_length
    tokens = [random.randrange(1, 250) for _ in range(length // 2)] + torch.randint(1, 250, (length // 2,)).tolist()
    return tokens, float(np.random.random())


def rollout(tokens, reward):
    from megatron.rl.agent.api import TokenRollout

    has_turns = "list[list[int]]" in str(TokenRollout.model_fields["trajectory"].annotation)
    per_turn = (lambda of_one: [of_one]) if has_turns else (lambda of_one: of_one)
    tokens = [BOS, *tokens[1:]]
    known = {
        "trajectory": per_turn(tokens),
        "reward": reward,
        "generation_mask": per_turn([at > 0 for at in range(len(tokens))]),
        "logprobs": per_turn([-1.0] * (len(tokens) - 1)),
        "env_id": "drawn",
        "problem_id": "0",
        "policy_epoch": [[(0, 0)]],
        "kv_cache_epoch": [[(0, 0)]],
        "num_evictions": [0],
    }
    return TokenRollout(**{name: value for name, value in known.items() if name in TokenRollout.model_fields})


def grouped(rollouts):
    from megatron.rl.agent import api

    return api.RolloutGroup(rollouts=rollouts) if hasattr(api, "RolloutGroup") else rollouts


BOS = 251


def name_special_tokens():
    """A tokenizer of numbers has none, and RL asks for them."""
    for module, name in (
        ("megatron.core.tokenizers.text.libraries.null_tokenizer", "NullTokenizer"),
        ("megatron.training.tokenizer.tokenizer", "_NullTokenizer"),  # up to 0.16
    ):
        with contextlib.suppress(ModuleNotFoundError):
            tokenizer = getattr(importlib.import_module(module), name, None)
            for token in ("bos", "pad", "bos_id", "pad_id") if tokenizer else ():
                setattr(tokenizer, token, property(lambda self: BOS))


def without_packing(get_logprobs):
    """Only Transformer Engine's attention takes packed sequences; here each row is one whole sequence."""

    def get(*args, packed_seq_params=None, **more):
        return get_logprobs(*args, **more)

    return get


def import_into(training, rl_utils):
    """As megatron.training.training does, which may have been imported where those packages were missing."""
    training.has_rl_utils, training.rl_utils = True, rl_utils
    if importlib.util.find_spec("megatron.rl.rl_profiling") is not None:  # from 0.19 on
        profiling = importlib.import_module("megatron.rl.rl_profiling")
        for name in ("RL_LOGGABLE_TIMER_NAMES", "initialize_rl_profiler", "log_iteration_profile"):
            setattr(training, name, getattr(profiling, name))
        training.shutdown_rl_profiler = profiling.shutdown_rl_profiler


def main():
    script = sys.argv[1]
    for package in ONLY_TO_GENERATE:
        if importlib.util.find_spec(package) is None:
            pretend_to_have(package)
    from megatron.rl import rl_utils
    from megatron.training import training

    rl_utils.get_environment_rollouts = draw_rollouts
    rl_utils.get_logprobs = without_packing(rl_utils.get_logprobs)
    rl_utils.PackedSeqParams = lambda **shape: None
    import_into(training, rl_utils)
    name_special_tokens()
    del sys.argv[0]
    sys.path.insert(0, str(Path(script).parent))
    exec(compile(Path(script).read_text(), script, "exec"), {"__name__": "__main__", "__file__": script})


if __name__ == "__main__":
    main()
