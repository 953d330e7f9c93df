"""A release has the order of the one before: a job that is updated in mid-epoch goes on with it."""

import json

import pytest

from megatron_resume.data import EpisodeSampler
from support.golden_order import CASES, GOLDEN, golden, piece

STORED = json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", [*CASES, "grown"])
def test_the_order_is_that_of_the_releases_before(case: str) -> None:
    assert golden(case) == STORED[case]


def test_a_stored_state_goes_on_in_the_stored_order() -> None:
    sampler = EpisodeSampler([120, 80, 50], weights=[1, 1, 2], samples_per_episode=32)
    assert sampler.load_state_dict(STORED["grown"]["state"]) is None
    assert [piece(sampler, one["start"]) for one in STORED["grown"]["pieces"]] == STORED["grown"]["pieces"]
