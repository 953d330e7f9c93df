"""Samplers, tracked: they go on where the job stopped, or say why they cannot."""

import itertools
from typing import Any

import pytest
from torch.utils.data import DataLoader

from megatron_resume.adapter.orders import order_of
from megatron_resume.adapter.tracked import Tracked
from megatron_resume.data import EpisodeSampler
from megatron_resume.errors import DamagedError, MismatchError

TOTAL, MICRO = 101, 2


def sequential(rank: int, num_ranks: int, total: int = TOTAL) -> Any:
    # Not at the top: each worker of a test run would spend seconds on it, also where it runs none of these tests.
    from megatron.training.datasets.data_samplers import MegatronPretrainingSampler

    return MegatronPretrainingSampler(total, 0, MICRO, rank, num_ranks)


def random(rank: int, num_ranks: int, *, sharding: bool = False, total: int = TOTAL, micro: int = MICRO) -> Any:
    from megatron.training.datasets.data_samplers import MegatronPretrainingRandomSampler

    return MegatronPretrainingRandomSampler(None, total, 0, micro, rank, num_ranks, sharding)


def drawn(samplers: list[Any], steps: int) -> list[set[int]]:
    """What all ranks together draw in each step, over epochs, as Megatron's cyclic loader asks for it."""

    def batches(sampler: Any) -> Any:
        while True:
            yield from sampler

    iterators = [batches(sampler) for sampler in samplers]
    return [{index for iterator in iterators for index in next(iterator)} for _ in range(steps)]


def resumed(make: Any, saved_by: Any, consumed: int, num_ranks: int, on_dataset_change: str = "refuse") -> list[Any]:
    state = order_of(saved_by).state_at(consumed)
    samplers = [make(rank, num_ranks) for rank in range(num_ranks)]
    for sampler in samplers:
        order_of(sampler).restore(state, on_dataset_change)
    return samplers


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_the_sequential_sampler_goes_on_with_any_number_of_ranks(num_ranks: int) -> None:
    samplers = resumed(sequential, sequential(0, 2), 24, num_ranks)
    size = MICRO * num_ranks
    assert drawn(samplers, 3) == [set(range(24 + i * size, 24 + (i + 1) * size)) for i in range(3)]


@pytest.mark.parametrize("sharding", [False, True])
@pytest.mark.parametrize("steps", [7, 25, 60])  # in the first epoch, at its end, in a later one
def test_the_random_sampler_goes_on_with_the_same_ranks(sharding: bool, steps: int) -> None:
    def make(rank: int, num_ranks: int) -> Any:
        return random(rank, num_ranks, sharding=sharding)

    undisturbed = drawn([make(0, 2), make(1, 2)], steps + 30)
    samplers = resumed(make, make(0, 2), steps * MICRO * 2, 2)
    assert drawn(samplers, 30) == undisturbed[steps:]


def test_without_sharding_other_ranks_go_on_where_epochs_are_as_long() -> None:
    def make(rank: int, num_ranks: int) -> Any:
        return random(rank, num_ranks, total=96)

    undisturbed = set.union(*drawn([make(rank, 2) for rank in range(2)], 24)[4:])
    assert set.union(*drawn(resumed(make, make(0, 2), 16, 4), 10)) == undisturbed


@pytest.mark.parametrize(
    ("saved_by", "make", "reason"),
    [
        (
            lambda: random(0, 2, sharding=True),
            lambda rank, num_ranks: random(rank, 4, sharding=True),
            "with data sharding shuffled a bucket for each of 2 ranks, and now of 4",
        ),
        (lambda: random(0, 2), lambda rank, num_ranks: random(rank, 3), "counted epochs of 100 samples on 2 ranks"),
        (lambda: random(0, 2), lambda rank, num_ranks: random(rank, 2, micro=5), "shuffled micro batches of 2"),
        (lambda: random(0, 2), lambda rank, num_ranks: random(rank, 2, sharding=True), "now with data sharding"),
        (lambda: random(0, 2), lambda rank, num_ranks: random(rank, 2, total=103), "the whole order depends on it"),
    ],
)
def test_the_trap_of_the_random_sampler_is_refused_with_its_reason(saved_by: Any, make: Any, reason: str) -> None:
    with pytest.raises(MismatchError, match=reason):
        resumed(make, saved_by(), 12, 1, "append")


def test_a_batch_that_would_be_cut_is_refused() -> None:
    with pytest.raises(MismatchError, match="stands inside a batch of this run"):
        resumed(lambda rank, num_ranks: random(rank, 4, total=96), random(0, 2, total=96), 12, 4)


def test_a_dataset_that_grew_is_refused_unless_its_new_rows_may_be_appended() -> None:
    def grown(rank: int, num_ranks: int) -> Any:
        return sequential(rank, num_ranks, TOTAL + 9)

    with pytest.raises(MismatchError, match="had 101 samples when this was saved, and has 110 now: type --on-dataset"):
        resumed(grown, sequential(0, 1), 12, 1)
    told = order_of(grown(0, 1)).restore(order_of(sequential(0, 1)).state_at(12), "append")
    assert told == "the dataset had 101 samples at the save and has 110: 0 repeated, 0 skipped, 9 new"
    (sampler,) = resumed(grown, sequential(0, 1), 12, 1, "append")
    assert drawn([sampler], 1) == [{12, 13}]


def test_a_dataset_that_shrank_is_refused_in_any_case() -> None:
    with pytest.raises(MismatchError, match="has 90 now: restore it"):
        resumed(lambda rank, num_ranks: sequential(rank, num_ranks, 90), sequential(0, 1), 12, 1, "append")


@pytest.mark.parametrize("state", [None, [], {}, {"total_samples": "x", "consumed_samples": 1}, {"other": 1}])
def test_a_state_that_is_none_is_refused(state: Any) -> None:
    with pytest.raises(DamagedError, match="the state of a sampler is damaged"):
        order_of(sequential(0, 1)).restore(state, "refuse")


def test_what_a_state_is_made_of_is_read_when_it_is_tracked_and_not_at_the_first_save() -> None:
    class Rows:
        name, asked = "prompts.jsonl", list[int]()

        def __len__(self) -> int:
            return 50

        def digest(self, rows: int) -> str:
            self.asked.append(rows)
            return "f" * 64

    tracked = Tracked()
    tracked.add("prompts", EpisodeSampler(50, samples_per_episode=8, datasets=Rows()))
    assert Rows.asked == [50]
    tracked.capture(8)
    assert Rows.asked == [50]


def test_what_is_no_sampler_follows_nothing() -> None:
    assert order_of(object()) is None


@pytest.mark.parametrize("workers", [0, 2])
def test_prompts_that_a_loader_drew_ahead_and_the_job_draws_again_are_told(
    workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    sampler = EpisodeSampler(1_000, samples_per_episode=8)
    batches = iter(DataLoader(range(1_000), sampler=sampler, batch_size=4, num_workers=workers))
    given = []
    for episode in range(1, 7):
        given += [row for batch in itertools.islice(batches, 2) for row in batch.tolist()]
        order_of(sampler).move_to(8 * episode)
    again = len(given) - len(set(given))
    assert (again > 0) == bool(workers)
    assert ("come again" in caplog.text) == bool(workers)
    assert ("batch_sampler=sampler.for_rank" in caplog.text) == bool(workers)


def test_prompts_that_the_job_counts_and_did_not_take_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """As of a second sampler, of another dataset, that is not tracked with own_position."""
    order = order_of(EpisodeSampler(1_000, samples_per_episode=8))
    order.sampler.take(2)
    order.move_to(8)
    assert "gave prompts up to sample 2, and the job says that it used 8: those between are skipped" in caplog.text
    assert "own_position=True" in caplog.text


def test_an_order_that_moves_with_the_job_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    order = order_of(EpisodeSampler(1_000, samples_per_episode=8))
    order.restore(EpisodeSampler(1_000, samples_per_episode=8).state_dict(40), "refuse")
    order.move_to(48)  # of a loader over for_rank, which does not move it
    order.sampler.take(8)
    order.move_to(56)
    assert (order.sampler.consumed_samples, caplog.text) == (56, "")
