"""The order is one function of the position: however it is read, from wherever it is resumed."""

import itertools
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_resume.data import EpisodeSampler
from megatron_resume.data.history import Change, Order, Rules, Setup
from megatron_resume.errors import ConfigError
from support.reference import walk

some_sizes = st.lists(st.integers(1, 12), min_size=1, max_size=3)
large = st.integers(1, 10**12)


def some_weights(datasets: int) -> st.SearchStrategy[tuple[float, ...]]:
    one = st.sampled_from([0.5, 1.0, 2.0, 0.3])
    return st.just(()) | st.lists(one, min_size=datasets, max_size=datasets).map(tuple)


@st.composite
def histories(draw: st.DrawFn) -> tuple[Change, ...]:
    """Rows and datasets that come, weights that change, and episodes that change where they may."""
    sizes = tuple(draw(some_sizes))
    found = [Change(0, Setup(sizes, draw(st.integers(1, 7)), draw(some_weights(len(sizes)))))]
    for step in draw(st.lists(st.integers(1, 40), max_size=4)):
        before = found[-1]
        at = before.at + step
        sizes = tuple(size + draw(st.sampled_from([0, 0, 1, 5])) for size in before.setup.sizes)
        sizes += tuple(draw(st.lists(st.integers(1, 9), max_size=1)))
        begins = Order(Rules(), tuple(found)).episode(at - 1)[1] == at
        length = draw(st.integers(1, 7)) if begins else before.setup.samples_per_episode
        found.append(Change(at, Setup(sizes, length, draw(some_weights(len(sizes))))))
    return tuple(found)


@given(history=histories(), shuffle=st.booleans(), start=st.integers(0, 150), count=st.integers(0, 80))
@settings(deadline=None)
def test_the_order_is_that_of_epochs_used_up_one_by_one(
    history: tuple[Change, ...], shuffle: bool, start: int, count: int
) -> None:
    rules = Rules(3, shuffle)
    datasets, rows = Order(rules, history).positions(start, count)
    expected = itertools.islice(walk(rules, history), start, start + count)
    assert list(zip(datasets.tolist(), rows.tolist(), strict=True)) == list(expected)


@given(size=st.integers(1, 30), length=st.integers(1, 30), more=st.integers(0, 20), at=st.integers(1, 60))
@settings(deadline=None)
def test_with_drop_last_epochs_hold_whole_episodes(size: int, length: int, more: int, at: int) -> None:
    size = max(size, length)
    rules = Rules(3, drop_last=True)
    history = (Change(0, Setup((size,), length)), Change(at, Setup((size + more,), length)))
    rows = Order(rules, history).positions(0, 150)[1].tolist()
    assert rows == [row for _, row in itertools.islice(walk(rules, history), 150)]
    episodes = [rows[begin : begin + length] for begin in range(0, 150 - length, length)]
    assert all(len(set(episode)) == length for episode in episodes)


@given(history=histories())
@settings(deadline=None)
def test_episodes_are_counted_on_and_end_where_the_next_begins(history: tuple[Change, ...]) -> None:
    order, position = Order(Rules(), history), 0
    for number in range(60):
        found, end = order.episode(position)
        length = next(one.setup.samples_per_episode for one in reversed(history) if one.at <= position)
        assert (found, end) == (number, position + length)
        assert order.episode(end - 1) == (number, end)
        position = end


@given(sizes=st.lists(large, min_size=1, max_size=4), start=st.integers(0, 10**13), counts=st.lists(st.integers(0, 60)))
@settings(deadline=None)
def test_seeking_takes_up_the_order_where_it_is(sizes: list[int], start: int, counts: list[int]) -> None:
    sampler = EpisodeSampler(sizes, samples_per_episode=100, seed=5)
    sampler.seek(start)
    taken = [tuple(row) for count in counts for row in sampler.take(count).tolist()]
    assert taken == [tuple(row) for row in sampler.positions(start, sum(counts)).tolist()]
    assert sampler.consumed_samples == start + sum(counts)


@given(size=st.integers(1, 300), start=st.integers(0, 700), count=st.integers(1, 300))
def test_iterating_gives_the_same_and_moves(size: int, start: int, count: int) -> None:
    sampler = EpisodeSampler(size, samples_per_episode=10)
    sampler.seek(start)
    assert list(itertools.islice(sampler, count)) == sampler.positions(start, count).tolist()
    assert sampler.consumed_samples == start + count


@given(moves=st.lists(st.tuples(st.integers(0, 30_000), st.integers(0, 3_000)), max_size=5))
@settings(deadline=None)
def test_seeking_back_and_forth_takes_what_is_there(moves: list[tuple[int, int]]) -> None:
    sampler = EpisodeSampler(10**9, samples_per_episode=100)
    for start, count in moves:
        sampler.seek(start)
        assert sampler.take(count).tolist() == sampler.positions(start, count).tolist()


def test_iterating_goes_on_where_the_sampler_was_moved_to() -> None:
    sampler = EpisodeSampler([500, 10**6], samples_per_episode=10)
    rows = iter(sampler)
    next(rows)
    sampler.seek(40)
    assert next(rows) == tuple(sampler.positions(40, 1)[0].tolist())


@pytest.mark.parametrize("size", [3, 1_000, 65_535, 65_536, 70_001])
def test_each_epoch_has_every_row_once_and_is_another_order(size: int) -> None:
    epochs = EpisodeSampler(size, samples_per_episode=10).positions(0, 3 * size).reshape(3, size)
    assert (np.sort(epochs, axis=1) == np.arange(size)).all()
    assert size == 3 or len({tuple(epoch) for epoch in epochs.tolist()}) == 3


def test_datasets_of_a_mixture_have_epochs_of_their_own() -> None:
    found = EpisodeSampler([4, 10], weights=[1, 1], samples_per_episode=10).positions(0, 40).tolist()
    of_first = [row for dataset, row in found if dataset == 0]
    assert [sorted(of_first[at : at + 4]) for at in range(0, 20, 4)] == [[0, 1, 2, 3]] * 5
    assert Counter(row for dataset, row in found if dataset == 1) == dict.fromkeys(range(10), 2)


def test_datasets_of_equal_size_have_orders_of_their_own() -> None:
    found = EpisodeSampler([50, 50], samples_per_episode=10).positions(0, 100).tolist()
    assert [row for dataset, row in found if dataset == 0] != [row for dataset, row in found if dataset == 1]


def test_unshuffled_rows_come_in_their_order_and_around_again() -> None:
    sampler = EpisodeSampler(5, samples_per_episode=3, shuffle=False)
    assert sampler.take(12).tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]


def test_a_list_of_one_size_gives_pairs() -> None:
    pairs = EpisodeSampler([7], samples_per_episode=3).take(9)
    assert pairs[:, 0].tolist() == [0] * 9
    assert pairs[:, 1].tolist() == EpisodeSampler(7, samples_per_episode=3).take(9).tolist()


def test_what_is_taken_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        EpisodeSampler(10, samples_per_episode=3).take(2)[0] = 1


def test_the_episode_is_that_of_the_position() -> None:
    sampler = EpisodeSampler(10, samples_per_episode=4)
    sampler.advance(11)
    assert (sampler.episode, sampler.consumed_samples) == (2, 11)


@pytest.mark.parametrize("sizes", [10**9, 10**12, [10**12, 10**9, 10**5]])
def test_seeking_and_reading_on_takes_less_than_a_mebibyte_at_any_size(sizes: int | list[int]) -> None:
    sampler = EpisodeSampler(
        sizes, samples_per_episode=1_000_000, weights=[5, 3, 2] if isinstance(sizes, list) else None
    )
    tracemalloc.start()
    sampler.seek(991_234_567_890)
    rows = sum(len(batch) for batch in itertools.islice(sampler.for_rank(0, 1, 1_024), 100))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows > 90_000
    assert peak <= 1 << 20


@given(size=st.integers(1, 10**6), position=st.integers(0, 200_000), step=st.integers(1, 1_000))
@settings(deadline=None)
def test_a_proof_is_of_the_samples_before_it(size: int, position: int, step: int) -> None:
    sampler, other = (EpisodeSampler(size, samples_per_episode=10, seed=seed) for seed in (1, 2))
    before = sampler.state_dict()
    assert sampler.proof(position) == EpisodeSampler([size], samples_per_episode=7, seed=1).proof(position)
    assert (sampler.proof(position) == other.proof(position)) == (
        position == 0 or size == 1 or _same(sampler, other, position)
    )
    assert sampler.state_dict() == before


def _same(one: EpisodeSampler, other: EpisodeSampler, position: int) -> bool:
    start = max(0, position - 65_536)
    return bool((one.positions(start, position - start) == other.positions(start, position - start)).all())


def test_a_proof_sees_one_other_row() -> None:
    one = EpisodeSampler(1_000, samples_per_episode=10)
    assert len({one.proof(position) for position in range(300)}) == 300


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"sizes": 0}, "the size of dataset 0 is 0; give a whole number from 1"),
        ({"sizes": -5}, "the size of dataset 0 is -5"),
        ({"sizes": [4, 0]}, "the size of dataset 1 is 0"),
        ({"sizes": []}, "no dataset"),
        ({"sizes": 2**53}, "the size of dataset 0 is 9,007,199,254,740,992; give a whole number from 1 to"),
        ({"sizes": 1.5}, "the size of dataset 0 is 1.5, a float; give a whole number"),
        ({"sizes": True}, "the size of dataset 0 is True, a bool"),
        ({"sizes": "12"}, "the size of dataset 0 is '1', a str"),
        ({"samples_per_episode": 0}, "samples_per_episode is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 1.0}, "seed is 1.0, a float"),
        ({"sizes": [4, 4], "weights": [1]}, "1 weights for 2 datasets; give one for each"),
        ({"sizes": [4, 4], "weights": [1, 0]}, "the weight of dataset 1 is 0.0; give a number above 0"),
        ({"sizes": [4, 4], "weights": [1, -2]}, "the weight of dataset 1 is -2.0"),
        ({"sizes": [4, 4], "weights": [1, float("nan")]}, "the weight of dataset 1 is nan"),
        ({"sizes": [4, 4], "weights": [1, float("inf")]}, "the weight of dataset 1 is inf"),
        ({"sizes": [4, 4], "weights": [1, "2"]}, "the weight of dataset 1 is '2'; give a number"),
        ({"sizes": [4, 4], "weights": []}, "weights is empty"),
        ({"sizes": [4, 4], "drop_last": True}, "drop_last with several datasets: .* leave drop_last out"),
        ({"sizes": 2, "drop_last": True}, "drop_last with 2 rows and 3 samples per episode would drop every sample"),
        ({"described": {"template": "x" * 257}}, "of a longer text, its digest"),
        ({"described": {"tokenizer": "of a path\udcff"}}, "a text of up to 256 characters in UTF-8"),
        ({"described": {"tokenizer": None}}, "described has 'tokenizer': 'None'"),
        ({"described": dict.fromkeys(map(str, range(17)), 1)}, "17 entries; give 16 at most"),
    ],
)
def test_what_makes_no_order_is_refused_with_what_to_give(change: dict, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        EpisodeSampler(**{"sizes": 10, "samples_per_episode": 3, **change})


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda s: s.seek(-1), "consumed_samples is -1; give a whole number from 0"),
        (lambda s: s.seek(2**53), "consumed_samples is 9,007,199,254,740,992"),
        (lambda s: s.seek(2.0), "consumed_samples is 2.0, a float"),
        (lambda s: s.take(-1), "count is -1"),
        (lambda s: s.take(True), "count is True, a bool"),
        (lambda s: s.positions(-1, 2), "start is -1"),
        (lambda s: s.advance(-1), "samples is -1"),
        (lambda s: s.proof(-1), "consumed_samples is -1"),
        (lambda s: s.for_rank(2, 2, 1), "rank is 2 of 2 ranks; give 0 to 1"),
        (lambda s: s.for_rank(-1, 2, 1), "rank is -1"),
        (lambda s: s.for_rank(0, 0, 1), "num_ranks is 0"),
        (lambda s: s.for_rank(0, 1, 0), "micro_batch_size is 0"),
    ],
)
def test_a_wrong_argument_is_refused_and_moves_nothing(call: object, text: str) -> None:
    sampler = EpisodeSampler(10, samples_per_episode=3)
    sampler.seek(4)
    with pytest.raises(ConfigError, match=text):
        call(sampler)
    assert sampler.consumed_samples == 4


def test_numpys_whole_numbers_are_taken() -> None:
    sampler = EpisodeSampler(np.int64(10), samples_per_episode=np.int32(3), seed=np.uint8(4))
    sampler.seek(np.int64(7))
    assert (
        sampler.positions(7, 5).tolist() == EpisodeSampler(10, samples_per_episode=3, seed=4).positions(7, 5).tolist()
    )


def test_a_weight_that_no_cycle_can_keep_is_warned_of_with_both_shares(caplog: pytest.LogCaptureFixture) -> None:
    EpisodeSampler([10**9 + 7, 10], samples_per_episode=3)
    assert "dataset 1 is to be 1e-06% of all samples and will be 0.00153%" in caplog.text


def test_of_many_coarse_weights_a_few_are_warned_of_and_the_others_counted(caplog: pytest.LogCaptureFixture) -> None:
    EpisodeSampler([10**9 + 7, *[10] * 2_000], samples_per_episode=3)
    assert len(caplog.records) == 9
    assert "and 1,993 other datasets are as coarse" in caplog.text


def test_weights_that_a_cycle_keeps_are_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    EpisodeSampler([10, 10], weights=[0.999, 0.001], samples_per_episode=3)
    assert caplog.text == ""
