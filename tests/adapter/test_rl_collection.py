"""Where a save comes in a collection of rollouts of Megatron's RL."""

import logging
import sys
from argparse import Namespace
from types import SimpleNamespace

import pytest

from megatron_resume.adapter import rl_collection


def args(**changes: int) -> Namespace:
    """Two passes over 64 rollouts, 32 a step: 4 train steps on each collection."""
    of_rl = {"perform_rl_step": True, "grpo_iterations": 2, "grpo_prompts_per_step": 8, "grpo_group_size": 8}
    return Namespace(**{**of_rl, "global_batch_size": 32, **changes})


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What Megatron's RL knows of its newest collection."""
    known = SimpleNamespace(last_collection_iteration=4)
    monkeypatch.setitem(sys.modules, rl_collection.RL, SimpleNamespace(get_rl_runtime_state=lambda: known))
    return known


def said(caplog: pytest.LogCaptureFixture, iteration: int, **changes: int) -> str:
    with caplog.at_level(logging.WARNING):
        rl_collection.warn_of_lost_steps("policy", iteration, args(**changes))
    return caplog.text


@pytest.mark.parametrize(("begun_at", "done"), [(0, None), (1, 3), (2, 2), (3, 1), (4, None)])
def test_it_counts_from_where_the_collection_began(
    state: SimpleNamespace, caplog: pytest.LogCaptureFixture, begun_at: int, done: int | None
) -> None:
    state.last_collection_iteration = begun_at
    text = said(caplog, 4)
    assert (f"after {done} of its 4 train steps" in text) if done else not text


def test_a_collection_of_one_step_has_no_middle(caplog: pytest.LogCaptureFixture) -> None:
    assert not said(caplog, 5, grpo_iterations=1, global_batch_size=64)


def test_a_loop_that_is_not_megatrons_rl_is_not_meant(caplog: pytest.LogCaptureFixture) -> None:
    assert not said(caplog, 5, perform_rl_step=False)
    with caplog.at_level(logging.WARNING):
        rl_collection.warn_of_lost_steps("policy", 5, Namespace())
    assert not caplog.text
