"""Tracked state of which each rank has its own: it comes back to its rank, or is refused, and never that of another."""

import re
from collections.abc import Callable

import pytest

from support.runs import Run


@pytest.mark.parametrize(
    "tamper, told",
    [
        (
            "tracked_state.of_each_rank_as_one",
            "'mean' is tracked as one state for all ranks, and that of rank 1 differs",
        ),
        pytest.param(
            "tracked_state.of_rank_1_alone",
            "'mean' is tracked on rank 1 and not on rank 0, whose state would be saved",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_state_that_is_not_the_same_on_all_ranks_is_not_committed_and_ends_the_job(
    new_run: Callable[..., Run], tamper: str, told: str
) -> None:
    run = new_run("dp2")
    ended = run.tampered(tamper)
    assert 78 in ended.codes, ended.log[-4000:]
    assert re.search(rf"ERROR:megatron_resume:.*{re.escape(told)}", ended.log), ended.log[-4000:]
    assert "per_rank=True" in ended.log
    assert run.status()["point"] is None
    assert (run.output / "checkpoints" / "policy" / "iter_0000002").exists(), "Megatron saved it all the same"


@pytest.mark.parametrize("shape", ["tp2", pytest.param("dp2", marks=pytest.mark.slow)])
def test_each_rank_gets_its_own_state_back(new_run: Callable[..., Run], shape: str) -> None:
    run = new_run(shape)
    run.killed("commit.end", tamper="tracked_state.of_each_rank")
    ended = run.finish(tamper="tracked_state.of_each_rank")
    for rank in range(2):
        assert f"rank {rank} has the mean of ({rank}, {[rank + 1.0] * 3})" in ended.log
