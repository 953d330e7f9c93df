"""How the states of every rank come to rank 0: by the store of the run, in no collective."""

import random
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.distributed as dist

from megatron_resume.adapter import loaders, ranks, rng, sharing
from megatron_resume.adapter.gathering import Gathered, OfRank
from megatron_resume.errors import DamagedError


@pytest.fixture
def store() -> Iterator[dist.TCPStore]:
    yield dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def post(store: dist.TCPStore, monkeypatch: pytest.MonkeyPatch, rank: int, data: bytes) -> None:
    with monkeypatch.context() as as_rank:
        as_rank.setenv("RANK", str(rank))
        ranks.post(store, "megatron_resume/1/4/1", data)


def test_what_ranks_left_comes_in_rank_order_and_is_deleted(
    store: dist.TCPStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in (2, 3, 1):
        post(store, monkeypatch, rank, b"of %d" % rank)
    before = store.num_keys()
    assert ranks.collect(store, "megatron_resume/1/4/1", 4) == [b"of 1", b"of 2", b"of 3"]
    assert store.num_keys() == before - 3


def test_a_rank_that_is_slow_is_waited_for_and_the_store_stays_free(
    store: dist.TCPStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[list[bytes]] = []
    waiting = threading.Thread(target=lambda: found.append(ranks.collect(store, "megatron_resume/1/4/1", 2)))
    waiting.start()
    store.set("something else", b"passes")
    post(store, monkeypatch, 1, b"late")
    waiting.join()
    assert found == [[b"late"]]


def test_a_rank_that_never_hands_in_its_states_is_named(store: dist.TCPStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "COLLECT_S", 0.05)
    post(store, monkeypatch, 1, b"here")
    with pytest.raises(DamagedError, match="rank 2 did not hand in its states"):
        ranks.collect(store, "megatron_resume/1/4/1", 4)


def test_states_that_came_to_no_point_go_with_the_next_ones(
    store: dist.TCPStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = OfRank(
        rng.Captured(random.getstate(), np.random.get_state(), {"torch": torch.get_rng_state()}),
        loaders.Captured(0, {}),
        sharing.Captured({}, {}),
    )
    post(store, monkeypatch, 1, b"never asked for")
    store.set("megatron_resume/1/6/1/1", states.pack())
    before = store.num_keys()
    later = Gathered(states, store, "megatron_resume/1/6/1", ("megatron_resume/1/4/1",), {"ranks": 2})
    found, _, arrays = later.unpack(sharing.Captured({}, {}))
    assert found.state_of_rank == (0, 0), "equal states are kept once"
    assert np.array_equal(arrays["rng/0/torch"], torch.get_rng_state().numpy())
    assert store.num_keys() == before - 2


def test_captured_states_are_packed_and_unpacked_unchanged() -> None:
    states = rng.Captured(random.getstate(), np.random.get_state(), {"torch": torch.get_rng_state()})
    arrays, again = states.arrays(), rng.unpack(states.pack())
    assert list(arrays) == list(again)
    for name, array in arrays.items():
        assert (array.dtype, array.tobytes()) == (again[name].dtype, again[name].tobytes())
