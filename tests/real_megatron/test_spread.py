"""How runs on a GPU are compared: prompts exactly, numbers within what two undisturbed runs differ by."""

from typing import Any

import pytest

from support.spread import beyond_spread, difference


def trace(*rewards: float, **changed: Any) -> list[dict[str, Any]]:
    """One iteration per reward; `changed` is put into the last."""
    fixed = {"episode": 0, "prompt_ids": [1, 2], "prompt_rows": [5, 6]}
    numbers = {"policy_loss": 0.5, "value_loss": 0.5, "kl": 0.1, "lr": 1e-3}
    lines = [{"iteration": i, **fixed, **numbers, "reward": reward} for i, reward in enumerate(rewards)]
    lines[-1] |= changed
    return [{k: v.hex() if isinstance(v, float) else v for k, v in line.items()} for line in lines]


def test_equal_traces_have_no_difference() -> None:
    assert difference(trace(1.0, 2.0), trace(1.0, 2.0)) == ""
    assert beyond_spread(trace(1.0, 2.0), trace(1.0, 2.0), trace(1.0, 2.0)) == ""


def test_the_last_bit_is_a_difference() -> None:
    found = difference(trace(1.0, 2.0), trace(1.0, 2.0000000000000004))
    assert found == "iteration 1: reward is '0x1.0000000000000p+1', and was '0x1.0000000000001p+1'"


def test_an_iteration_too_few_is_a_difference() -> None:
    assert difference(trace(1.0), trace(1.0, 2.0)) == "1 iterations, and the undisturbed run has 2"
    assert beyond_spread(trace(1.0), trace(1.0, 2.0), trace(1.0, 2.0)) != ""


def test_what_lies_as_near_as_the_two_undisturbed_runs_is_within_their_spread() -> None:
    assert beyond_spread(trace(1.0, 2.15), trace(1.0, 2.0), trace(1.0, 2.1)) == ""


def test_what_lies_farther_is_named_with_its_distance() -> None:
    found = beyond_spread(trace(1.0, 2.5), trace(1.0, 2.0), trace(1.0, 2.1))
    assert found == "iteration 1: reward is 0.4 away, the spread is 0.1"


def test_where_the_undisturbed_runs_are_equal_there_is_no_spread() -> None:
    assert "the spread is 0" in beyond_spread(trace(1.0, 2.0, kl=0.1 + 1e-12), trace(1.0, 2.0), trace(1.0, 2.0))


def test_what_is_no_number_is_never_within_a_spread() -> None:
    assert beyond_spread(trace(1.0, float("nan")), trace(1.0, 2.0), trace(1.0, 2.1)) != ""


@pytest.mark.parametrize("changed", [{"prompt_rows": [5, 7]}, {"prompt_ids": [1, 3]}, {"episode": 1}])
def test_prompts_and_counters_have_no_spread(changed: dict[str, Any]) -> None:
    wide = trace(1.0, 2.0), trace(1.0, 9.0)
    assert next(iter(changed)) in beyond_spread(trace(1.0, 2.0, **changed), *wide)
