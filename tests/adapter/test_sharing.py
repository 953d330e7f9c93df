"""Which states count as one that all ranks share."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from megatron_resume.adapter import sharing
from megatron_resume.adapter.tracked import Tracked
from megatron_resume.errors import DivergedError


class Holds:
    """Whatever state it was given."""

    def __init__(self, state: Any):
        self.state = state

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        raise AssertionError("nothing is restored here")


def captured(**states: Any) -> sharing.Captured:
    tracked = Tracked()
    for name, state in states.items():
        tracked.add(name, Holds(state))
    return tracked.capture_shared()


@pytest.mark.parametrize(
    "mine, other",
    [
        ({"b": 1, "a": 2}, {"a": 2, "b": 1}),
        ({7: np.ones(1), 3: [2]}, {3: [2], 7: np.ones(1)}),
        ({"mean": math.nan}, {"mean": math.nan}),
        ({"mean": torch.ones(2, dtype=torch.bfloat16)}, {"mean": torch.ones(2, dtype=torch.bfloat16)}),
        ((1, b"x", np.zeros((0, 3))), (1, b"x", np.zeros((0, 3)))),
    ],
    ids=["order of keys", "order of numbers", "NaN", "bfloat16", "an empty array"],
)
def test_equal_states_are_shared(mine: Any, other: Any) -> None:
    sharing.check(captured(kl=mine), {1: captured(kl=other).digests()})


@pytest.mark.parametrize(
    "mine, other",
    [
        ({"step": 1}, {"step": 2}),
        ({"step": 1}, {"step": 1.0}),
        ({"mean": 0.0}, {"mean": -0.0}),
        ([1, 2], (1, 2)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
        (np.zeros((1, 4)), np.zeros((2, 2))),
        ({"a": np.zeros(1), "b": np.ones(1)}, {"a": np.ones(1), "b": np.zeros(1)}),
    ],
    ids=["number", "type", "sign of zero", "tuple", "dtype", "shape", "arrays exchanged"],
)
def test_states_that_differ_are_refused_by_name_and_rank(mine: Any, other: Any) -> None:
    with pytest.raises(
        DivergedError, match="'kl' is tracked as one .* of ranks 1, 3 differs from that of rank 0"
    ) as error:
        sharing.check(
            captured(kl=mine, other=0),
            {1: captured(kl=other, other=0).digests(), 2: captured(kl=mine).digests(), 3: captured(kl=other).digests()},
        )
    assert error.value.exit_code == 78


def test_a_thousand_ranks_that_differ_are_not_all_named() -> None:
    others = {rank: captured(kl=rank).digests() for rank in range(1, 1000)}
    with pytest.raises(DivergedError, match="ranks 1, 2, 3, 4 and 995 more differs"):
        sharing.check(captured(kl=0), others)


def test_what_rank_0_does_not_track_would_be_saved_by_nobody() -> None:
    with pytest.raises(DivergedError, match="'kl' is tracked on rank 1 and not on rank 0"):
        sharing.check(captured(), {1: captured(kl=1).digests()})


def test_a_rank_need_not_track_what_rank_0_does() -> None:
    sharing.check(captured(kl=1), {1: {}})
