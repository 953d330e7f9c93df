"""Loops that do not ask Megatron to finish asynchronous saves, and a Megatron that finishes none."""

import sys

from megatron.core.dist_checkpointing.strategies import async_utils
from rlhf import job


def is_left_to_nobody():
    job.maybe_finalize_async_save = lambda *args, **kwargs: None


def is_asked_for_once_after_each_save():
    ask, save = job.maybe_finalize_async_save, job.save_checkpoint
    is_left_to_nobody()

    def save_and_ask(*args, **kwargs):
        save(*args, **kwargs)
        ask(blocking=False)

    job.save_checkpoint = save_and_ask


def finishes_nothing():
    is_left_to_nobody()
    async_utils.AsyncCallsQueue.maybe_finalize_async_calls = lambda self, *args, **kwargs: []


def finishes_only_when_waited_for():
    """As where the storage is slower than the train steps."""
    finalize = async_utils.AsyncCallsQueue.maybe_finalize_async_calls

    def finalize_if_waited_for(self, blocking=False, *args, **kwargs):
        return finalize(self, blocking, *args, **kwargs) if blocking else []

    async_utils.AsyncCallsQueue.maybe_finalize_async_calls = finalize_if_waited_for


def finishes_nothing_and_fails():
    finishes_nothing()
    _at_its_end(lambda: sys.exit(7))


def _at_its_end(action):
    main = job.main

    def main_then_act():
        code = main()
        action()
        return code

    job.main = main_then_act
