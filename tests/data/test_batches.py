"""The ranks take the global order together, whatever their number is from one attempt to the next."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_resume.data import EpisodeSampler, RankBatches
from megatron_resume.errors import DamagedError

attempts = st.lists(
    st.tuples(st.integers(1, 9), st.integers(1, 5), st.integers(0, 12), st.booleans()), min_size=1, max_size=6
)  # ranks, micro batch, steps until it stops, whether the steps are all lost


def steps(sampler: EpisodeSampler, num_ranks: int, micro: int, count: int) -> list[list[np.ndarray]]:
    """What all ranks take in so many steps: by step and rank."""
    ranks = [itertools.islice(sampler.for_rank(rank, num_ranks, micro), count) for rank in range(num_ranks)]
    return [list(step) for step in zip(*ranks, strict=True)]


@given(sizes=st.lists(st.integers(1, 10**12), min_size=1, max_size=3), length=st.integers(1, 60), attempts=attempts)
@settings(deadline=None)
def test_all_ranks_of_all_attempts_take_the_global_order(
    sizes: list[int], length: int, attempts: list[tuple[int, int, int, bool]]
) -> None:
    sampler = EpisodeSampler(sizes, samples_per_episode=length)
    state, taken = sampler.state_dict(), []
    for num_ranks, micro, count, lost in attempts:
        sampler = EpisodeSampler(sizes, samples_per_episode=length)
        sampler.load_state_dict(state)
        rows = [row for step in steps(sampler, num_ranks, micro, count) for batch in step for row in batch.tolist()]
        if not lost:  # else it dies before it saves
            sampler.advance(len(rows))
            taken += rows
            state = sampler.state_dict()
    assert taken == sampler.positions(0, len(taken)).tolist()


@given(length=st.integers(1, 60), start=st.integers(0, 200), ranks=st.integers(1, 9), micro=st.integers(1, 5))
@settings(deadline=None)
def test_no_step_crosses_an_episode_and_ranks_share_alike(length: int, start: int, ranks: int, micro: int) -> None:
    sampler = EpisodeSampler(1_000, samples_per_episode=length)
    sampler.seek(start)
    position = start
    for step in steps(sampler, ranks, micro, 20):
        sizes = [len(batch) for batch in step]
        left = length - position % length
        assert sum(sizes) == min(ranks * micro, left)
        assert max(sizes) - min(sizes) <= 1
        position += sum(sizes)


def test_a_global_batch_is_sliced_as_megatron_does() -> None:
    sampler = EpisodeSampler(100, samples_per_episode=50, shuffle=False)
    assert [batch.tolist() for batch in steps(sampler, 3, 2, 1)[0]] == [[0, 1], [2, 3], [4, 5]]


def test_the_last_step_of_an_episode_may_leave_a_rank_an_empty_batch() -> None:
    sampler = EpisodeSampler(100, samples_per_episode=7, shuffle=False)
    assert [batch.tolist() for batch in steps(sampler, 3, 2, 2)[1]] == [[6], [], []]


def test_an_iteration_begins_where_the_sampler_is_when_it_begins() -> None:
    sampler = EpisodeSampler(100, samples_per_episode=50, shuffle=False)
    batches = sampler.for_rank(0, 1, 4)
    sampler.seek(10)
    rows = iter(batches)
    sampler.seek(20)
    assert next(rows).tolist() == [10, 11, 12, 13]
    assert next(iter(batches)).tolist() == [20, 21, 22, 23]


def test_batches_that_lag_behind_the_job_say_so_once(caplog: pytest.LogCaptureFixture) -> None:
    sampler = EpisodeSampler(100, samples_per_episode=8)
    rows = iter(sampler.for_rank(0, 1, 4))
    next(rows)
    sampler.advance(4)
    next(rows)
    assert caplog.text == ""
    sampler.advance(12)  # of which it gave four: as at a start in mid-episode
    next(rows), next(rows)
    assert caplog.text.count("prompts that the job has used come again") == 1
    assert "goes on at sample 8" in caplog.text and "has used 16" in caplog.text


def test_drawing_batches_does_not_move_the_sampler() -> None:
    sampler = EpisodeSampler(100, samples_per_episode=50)
    next(iter(sampler.for_rank(0, 1, 4)))
    assert sampler.consumed_samples == 0


@given(drawn=st.integers(0, 30), ranks=st.integers(1, 5), later=st.integers(1, 5))
@settings(deadline=None)
def test_the_state_of_the_batches_goes_on_after_those_that_were_drawn(drawn: int, ranks: int, later: int) -> None:
    sampler = EpisodeSampler(100, samples_per_episode=17)
    batches = sampler.for_rank(ranks - 1, ranks, 2)
    taken = sum(len(batch) for step in steps(sampler, ranks, 2, drawn) for batch in step)
    for _ in itertools.islice(batches, drawn):
        pass
    restored = EpisodeSampler(100, samples_per_episode=17).for_rank(0, later, 3)
    restored.load_state_dict(batches.state_dict())
    assert restored.state_dict() == batches.state_dict() == {"consumed_samples": taken}
    again = EpisodeSampler(100, samples_per_episode=17)
    again.seek(taken)
    assert next(iter(restored)).tolist() == next(iter(again.for_rank(0, later, 3))).tolist()


def test_the_state_of_an_iteration_that_begins_is_where_it_begins() -> None:
    sampler = EpisodeSampler(100, samples_per_episode=50)
    batches = sampler.for_rank(0, 1, 4)
    next(iter(batches))
    sampler.seek(20)
    iter(batches)
    assert batches.state_dict() == {"consumed_samples": 20}


def test_a_restored_position_holds_for_one_iteration() -> None:
    sampler = EpisodeSampler(100, samples_per_episode=50, shuffle=False)
    batches = sampler.for_rank(0, 1, 2)
    batches.load_state_dict({"consumed_samples": 30})
    assert [next(iter(batches)).tolist() for _ in range(2)] == [[30, 31], [0, 1]]


def test_a_restored_position_holds_until_a_batch_is_drawn() -> None:
    batches = EpisodeSampler(100, samples_per_episode=50, shuffle=False).for_rank(0, 1, 2)
    batches.load_state_dict({"consumed_samples": 30})
    iter(batches)
    assert next(iter(batches)).tolist() == [30, 31]


@pytest.mark.parametrize("state", [{}, None, {"consumed_samples": -1}, {"consumed_samples": True}, {"other": 1}])
def test_a_state_that_is_no_position_is_refused(state: object) -> None:
    batches = RankBatches(EpisodeSampler(10, samples_per_episode=2), 0, 1, 1)
    with pytest.raises(DamagedError, match="the state of the batches is"):
        batches.load_state_dict(state)


@pytest.mark.torch
def test_a_torch_dataloader_takes_the_batches_also_with_workers() -> None:
    data = pytest.importorskip("torch.utils.data")
    sampler = EpisodeSampler(40, samples_per_episode=10)
    for workers in (0, 2):
        loader = data.DataLoader(list(range(40)), batch_sampler=sampler.for_rank(0, 1, 4), num_workers=workers)
        rows = [row for batch in itertools.islice(loader, 4) for row in batch.tolist()]
        assert rows == sampler.positions(0, len(rows)).tolist() and len(rows) == 14
