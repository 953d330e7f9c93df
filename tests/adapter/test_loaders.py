"""torchdata's StatefulDataLoader, tracked: each data-parallel rank gets its own position back, or is refused."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torchdata.stateful_dataloader import StatefulDataLoader

from megatron_resume.adapter import loaders, ranks
from megatron_resume.adapter.tracked import Tracked
from megatron_resume.checkpoint import arrays as codec
from megatron_resume.data import EpisodeSampler
from megatron_resume.errors import ConfigError, DamagedError, MismatchError

ROWS = list(range(60))


@pytest.fixture
def as_rank(monkeypatch: pytest.MonkeyPatch) -> Any:
    def pretend(rank: int, num_ranks: int) -> None:
        monkeypatch.setattr(ranks, "data_parallel", lambda: (rank, num_ranks))

    return pretend


def of(num_ranks: int) -> dict[str, int]:
    """The layout of as many ranks, as far as these tests need one."""
    return {"ranks": num_ranks}


def loader(rank: int, num_ranks: int, workers: int) -> Any:
    return StatefulDataLoader(ROWS[rank::num_ranks], batch_size=4, num_workers=workers)


def saved_after(steps: int, num_ranks: int, workers: int, as_rank: Any) -> tuple[Any, Any, list[list[int]]]:
    """What the data checkpoint holds after `steps` of every rank, its arrays, and what the ranks draw next."""
    parts, following = [], []
    for rank in range(num_ranks):
        as_rank(rank, num_ranks)
        made = loader(rank, num_ranks, workers)
        tracked = Tracked()
        tracked.add("loader", made)
        batches = iter(made)
        for _ in range(steps):
            next(batches)
        parts.append(tracked.capture_of_rank().pack())
        following.append(next(batches).tolist())
    states, arrays = loaders.merge(parts, of(num_ranks))
    return states, arrays, following


@pytest.fixture(params=[0, 2], ids=["in the process", "two workers"])
def workers(request: pytest.FixtureRequest) -> Iterator[int]:
    yield request.param


def test_each_rank_goes_on_where_it_stopped(workers: int, as_rank: Any) -> None:
    states, arrays, following = saved_after(3, 2, workers, as_rank)
    for rank in range(2):
        as_rank(rank, 2)
        made = loader(rank, 2, workers)
        tracked = Tracked()
        tracked.add("loader", made)
        tracked.load("loader", states, arrays, "the point")
        assert next(iter(made)).tolist() == following[rank]


def test_another_number_of_ranks_is_refused_with_the_reason(as_rank: Any) -> None:
    states, arrays, _ = saved_after(1, 2, 0, as_rank)
    as_rank(0, 3)
    tracked = Tracked()
    tracked.add("loader", loader(0, 3, 0))
    with pytest.raises(MismatchError, match="the position of each of 2 data-parallel ranks, and this run has 3"):
        tracked.load("loader", states, arrays, "the point")


def over_a_sampler(rank: int, num_ranks: int, workers: int) -> Any:
    batches = EpisodeSampler(1_000, samples_per_episode=14).for_rank(rank, num_ranks, 2)
    return StatefulDataLoader(range(1_000), batch_sampler=batches, num_workers=workers, collate_fn=list)


def saved_over_a_sampler(workers: int, as_rank: Any) -> tuple[Any, list[int]]:
    """What two ranks left after five steps, and what they drew."""
    parts, drawn = [], []
    for rank in range(2):
        as_rank(rank, 2)
        made, tracked = over_a_sampler(rank, 2, workers), Tracked()
        tracked.add("loader", made)
        drawn += [row for batch in itertools.islice(made, 5) for row in batch]
        parts.append(tracked.capture_of_rank().pack())
    return loaders.merge(parts, of(2))[0], drawn


@pytest.mark.parametrize(("then", "now"), [(0, 2), (2, 0), (2, 1), (1, 2)])
def test_another_number_of_workers_is_refused_with_the_number_to_type(then: int, now: int, as_rank: Any) -> None:
    states, arrays, _ = saved_after(2, 1, then, as_rank)
    as_rank(0, 1)
    tracked = Tracked()
    tracked.add("loader", loader(0, 1, now))
    with pytest.raises(MismatchError, match=rf"num_workers={then} and has num_workers={now}: .*workers {then}"):
        tracked.load("loader", states, arrays, "the point")


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_over_an_episode_sampler_any_number_of_ranks_goes_on(num_ranks: int, workers: int, as_rank: Any) -> None:
    states, drawn = saved_over_a_sampler(workers, as_rank)
    consumed = len(drawn)
    for rank in range(num_ranks):
        as_rank(rank, num_ranks)
        made, tracked = over_a_sampler(rank, num_ranks, workers), Tracked()
        tracked.add("loader", made)
        told = tracked.load("loader", states, {}, "the point", consumed_samples=consumed)
        assert told == (None if num_ranks == 2 else "the loader was of 2 ranks: its EpisodeSampler goes on without it")
        drawn += [row for batch in itertools.islice(made, 6) for row in batch]
    order = EpisodeSampler(1_000, samples_per_episode=14).take(len(drawn)).tolist()
    assert sorted(drawn) == sorted(order)


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_loaders_that_differ_by_pipeline_stage_alone_go_on_in_another_layout(num_ranks: int, as_rank: Any) -> None:
    """Megatron seeds each stage otherwise, and a loader takes the seed of its workers from there."""
    parts, drawn = [], []
    for stage, rank in itertools.product(range(2), range(2)):
        torch.manual_seed(stage)
        as_rank(rank, 2)
        made, tracked = over_a_sampler(rank, 2, 1), Tracked()
        tracked.add("loader", made)
        rows = [row for batch in itertools.islice(made, 5) for row in batch]
        drawn += rows if stage == 0 else []
        parts.append(tracked.capture_of_rank().pack())
    states, _ = loaders.merge(parts, {"ranks": 4, "pipeline": 2})
    assert loaders.ALL in states["loader"]
    consumed = len(drawn)
    for rank in range(num_ranks):
        as_rank(rank, num_ranks)
        made, tracked = over_a_sampler(rank, num_ranks, 1), Tracked()
        tracked.add("loader", made)
        tracked.load("loader", states, {}, "the point", consumed_samples=consumed)
        drawn += [row for batch in itertools.islice(made, 6) for row in batch]
    assert sorted(drawn) == sorted(EpisodeSampler(1_000, samples_per_episode=14).take(len(drawn)).tolist())


def test_in_mid_episode_a_loader_of_other_ranks_is_refused(as_rank: Any) -> None:
    """Its position is the job's between two episodes only: here it has given prompts that are not used up."""
    states, drawn = saved_over_a_sampler(0, as_rank)
    as_rank(0, 1)
    tracked = Tracked()
    tracked.add("loader", over_a_sampler(0, 1, 0))
    with pytest.raises(MismatchError, match="saved in mid-episode on 2 data-parallel ranks, and this run has 1"):
        tracked.load("loader", states, {}, "the point", consumed_samples=len(drawn), mid_episode=True)


def test_the_batches_of_a_rank_are_no_state_of_the_job_since_a_loader_draws_them_ahead() -> None:
    batches = EpisodeSampler(100, samples_per_episode=10).for_rank(0, 1, 2)
    with pytest.raises(ConfigError, match="draws ahead of the training: .* Track the EpisodeSampler"):
        Tracked().add("batches", batches)


def captured(data_rank: int, state: Any = None, **arrays: np.ndarray[Any, Any]) -> bytes:
    """What a rank packs that tracks "own" with `state`, or nothing."""
    return loaders.Captured(data_rank, {} if state is None else {"own": (state, arrays)}).pack()


def test_of_ranks_that_read_the_same_data_one_speaks() -> None:
    without = captured(0)  # as tensor-parallel ranks, which have no loader
    states, _ = loaders.merge([captured(0, 5), without, captured(1, 6), captured(1, 6)], of(4))
    assert states == {"own": {loaders.TAG: [5, 6]}}


def test_ranks_of_one_data_rank_that_differ_keep_their_own_state_and_arrays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = [{"of": rank, "sum": {"$array": "tracked/own/sum"}} for rank in range(3)]
    parts = [captured(0, own[rank], **{"tracked/own/sum": np.array([rank])}) for rank in range(3)]
    states, arrays = loaders.merge([*parts, captured(0)], of(4))
    for rank in range(3):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        found = codec.unpack(loaders.state_of("own", states["own"], 0, 1, of(4)), arrays, lambda *_: None)
        assert (found["of"], found["sum"].tolist()) == (rank, [rank])
    monkeypatch.setattr(ranks, "rank", lambda: 3)
    with pytest.raises(MismatchError, match="'own' was not tracked on rank 3 when it was saved"):
        loaders.state_of("own", states["own"], 0, 1, of(4))
    with pytest.raises(MismatchError, match="no rank could tell which is its own"):
        loaders.state_of("own", states["own"], 0, 1, {"ranks": 4, "tensor": 4})
    with pytest.raises(MismatchError, match="no rank could tell which is its own"):
        loaders.state_of("own", {loaders.ALL: [1], "layout": of(2)}, 0, 1, of(2))


def test_arrays_of_equal_states_are_kept_once() -> None:
    """As of an average of the weights under tensor parallel: all data-parallel ranks have that of their shard."""
    own = {"sum": {"$array": "tracked/own/sum"}}
    parts = [captured(place // 2, own, **{"tracked/own/sum": np.array([place % 2])}) for place in range(8)]
    states, arrays = loaders.merge(parts, of(8))
    named = [arrays[state["sum"]["$array"]].tolist() for state in states["own"][loaders.ALL]]
    assert (named, len(arrays)) == ([[0], [1]] * 4, 2)


def test_a_rank_that_did_not_track_its_loader_leaves_no_point() -> None:
    with pytest.raises(DamagedError, match="data-parallel rank 1 tracks no 'own'"):
        loaders.merge([captured(0, 5), captured(1)], of(2))


def test_what_all_shared_is_not_taken_for_that_of_a_rank() -> None:
    with pytest.raises(MismatchError, match="was saved as one state for all ranks"):
        loaders.state_of("loader", {"step": 3}, 0, 1, of(1))


def test_what_each_rank_had_is_not_given_to_one_that_all_share() -> None:
    class Shared:
        def state_dict(self) -> dict[str, int]:
            return {}

        def load_state_dict(self, state: Any) -> None:
            raise AssertionError("it got the state of a rank")

    tracked = Tracked()
    tracked.add("loader", Shared())
    with pytest.raises(MismatchError, match="was saved as one state for each rank"):
        tracked.load("loader", {"loader": {loaders.TAG: [{}]}}, {}, "the point")


def test_a_forged_list_of_ranks_is_refused() -> None:
    with pytest.raises(DamagedError, match="the state of 'loader' is damaged"):
        loaders.state_of("loader", {loaders.TAG: "x"}, 0, 1, of(1))
