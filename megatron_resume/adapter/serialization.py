"""Megatron's `dist_checkpointing.save` and `load`: what they are called with, before they do anything."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..hooks import AnyFunction, Hook, swap

MODULE = "megatron.core.dist_checkpointing.serialization"


@contextmanager
def before(function: str, act: Callable[[Any, Any], None]) -> Iterator[None]:
    """Let `act` see state dict and folder of each call of `function` inside the `with` block.

    Not a hook for good: only here it is known which save or load of ours Megatron is in. What a script has put in the
    place of `function`, such as one that takes its time, is left alone, and `act` sees nothing.

    Raises:
        UnsupportedMegatron: `function` is not as in any known version.
    """

    def wrap(original: AnyFunction) -> AnyFunction:
        def acts_first(sharded_state_dict: Any, checkpoint_dir: Any, *args: Any, **kwargs: Any) -> Any:
            act(sharded_state_dict, checkpoint_dir)
            return original(sharded_state_dict, checkpoint_dir, *args, **kwargs)

        return acts_first

    hook = Hook(MODULE, function, ("sharded_state_dict", "checkpoint_dir"), wrap, may_be_replaced=True)
    found = hook.find(importlib.import_module(MODULE))
    undo = swap(found, wrap) if found is not None else None
    try:
        yield
    finally:
        if undo is not None:
            undo()
