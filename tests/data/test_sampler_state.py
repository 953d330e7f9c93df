"""The stored state is small and plain, and one that is torn or forged is refused before anything moved."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_resume.data import EpisodeSampler
from megatron_resume.errors import DamagedError, MismatchError, ResumeError


class LongNamed:
    """A dataset with a name that is long, and longer in JSON."""

    name = "数据" * 200

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return self._rows

    def digest(self, rows: int) -> str:
        return "f" * 128


def job(**changed: object) -> EpisodeSampler:
    return EpisodeSampler(**{"sizes": [50, 70], "samples_per_episode": 10, "weights": [1, 2], **changed})


def state_after_two_changes() -> dict:
    first = job()
    first.seek(20)
    for sizes, weights, at in (([60, 70], [1, 2], 40), ([60, 70, 30], [1, 1, 1], 65)):
        later = job(sizes=sizes, weights=weights)
        later.load_state_dict(first.state_dict(), on_dataset_change="append")
        first = later
        first.seek(at)
    return first.state_dict()


def resumed() -> EpisodeSampler:
    return job(sizes=[60, 70, 30], weights=[1, 1, 1])


def test_a_state_goes_through_json_and_goes_on() -> None:
    state = state_after_two_changes()
    assert json.loads(json.dumps(state)) == state
    again = resumed()
    assert again.load_state_dict(json.loads(json.dumps(state))) is None
    assert again.consumed_samples == 65
    assert again.state_dict() == state


@pytest.mark.parametrize(("datasets", "changes"), [(1, 0), (1, 5), (2, 0), (2, 3), (30, 0), (30, 2), (300, 1)])
def test_a_state_takes_256_bytes_for_each_dataset_and_change(datasets: int, changes: int) -> None:
    at, state = 2**53 - 100, {}
    for change in range(changes + 1):
        rows = [2**53 - 200 + change] * datasets
        weights = [0.1234567890123456 + change * number / 3e5 for number in range(datasets)]
        now = EpisodeSampler(
            rows,
            samples_per_episode=2**53 - 2,
            weights=weights,
            seed=2**53 - 1,
            datasets=[LongNamed(size) for size in rows],
        )
        if change:
            now.load_state_dict(state, on_dataset_change="append")
        now.seek(at + change)
        state = now.state_dict()
    assert len(state["changes"]) == changes
    assert len(json.dumps(state)) <= 256 + 256 * datasets * (1 + changes)


def test_a_state_of_one_dataset_is_of_300_bytes_at_most() -> None:
    sampler = EpisodeSampler(10**9, samples_per_episode=1_024)
    sampler.seek(990_000_000)
    assert len(json.dumps(sampler.state_dict())) <= 300


@pytest.mark.parametrize("value", [True, 0, -1.5, np.float64(0.25), np.str_("llama"), "", "\x1b[2J\u2028"])
def test_whatever_a_job_may_describe_is_known_to_the_next_one(value: str | float) -> None:
    state = json.loads(json.dumps(job(described={"what": value}).state_dict()))
    assert job(described={"what": value}).load_state_dict(state) is None
    with pytest.raises(MismatchError, match="what has changed"):
        job(described={"what": "another"}).load_state_dict(state)


def test_a_dataset_may_have_a_name_that_is_no_utf_8() -> None:
    class Named(LongNamed):
        name = "prompts\udcff\n.jsonl"

    state = EpisodeSampler(5, samples_per_episode=2, datasets=Named(5)).state_dict()
    assert json.loads(json.dumps(state))["datasets"][0]["name"] == "prompts\\udcff\\n.jsonl"


FORGED = {
    "no mapping": lambda state: [1],
    "nothing": lambda state: {},
    "of no version": lambda state: state | {"version": "1"},
    "of version 0": lambda state: state | {"version": 0},
    "an unknown field": lambda state: state | {"more": 1},
    "a field is gone": lambda state: {name: value for name, value in state.items() if name != "seed"},
    "negative": lambda state: state | {"consumed_samples": -1},
    "absurdly far": lambda state: state | {"consumed_samples": 2**60},
    "a fraction": lambda state: state | {"consumed_samples": 65.5},
    "a text": lambda state: state | {"consumed_samples": "65"},
    "a truth": lambda state: state | {"consumed_samples": True},
    "a number for a truth": lambda state: state | {"shuffle": 1},
    "no dataset": lambda state: state | {"sizes": []},
    "an empty dataset": lambda state: state | {"sizes": [50, 0]},
    "an absurd dataset": lambda state: state | {"sizes": [50, 2**60]},
    "a weight for each but one": lambda state: state | {"weights": [1.0]},
    "a weight of zero": lambda state: state | {"weights": [1.0, 0.0]},
    "a weight that is no number": lambda state: state | {"weights": [1.0, float("nan")]},
    "no samples in an episode": lambda state: state | {"samples_per_episode": 0},
    "changes out of order": lambda state: state | {"changes": state["changes"][::-1]},
    "a change twice": lambda state: state | {"changes": [state["changes"][0], state["changes"][0]]},
    "a change before the start": lambda state: state | {"changes": [{"at": -5}]},
    "a change at the start": lambda state: state | {"changes": [{"at": 0, "sizes": [60, 70]}]},
    "a change that takes rows": lambda state: state | {"changes": [{"at": 20, "sizes": [40, 70]}]},
    "a change that takes a dataset": lambda state: state | {"changes": [{"at": 20, "sizes": [60]}]},
    "a change in mid-episode": lambda state: state | {"changes": [{"at": 25, "samples_per_episode": 3}]},
    "a change of something else": lambda state: state | {"changes": [{"at": 20, "seed": 3}]},
    "too many changes": lambda state: state | {"changes": [{"at": 20 + n} for n in range(2_000)]},
    "drop_last of a mixture": lambda state: state | {"drop_last": True},
    "contents of other datasets": lambda state: state | {"datasets": [{"name": "x", "digest": None}]},
    "a digest that is no text": lambda state: state | {"datasets": [{"name": "x", "digest": 5}] * 3},
    "a list described": lambda state: state | {"described": {"tokenizer": ["x"]}},
}


@pytest.mark.parametrize("forged", FORGED)
def test_a_state_that_nobody_saved_is_refused_and_nothing_moves(forged: str) -> None:
    sampler = resumed()
    sampler.seek(7)
    before = sampler.state_dict()
    with pytest.raises(DamagedError, match="the state of the sampler is damaged: .* restore the point from a backup"):
        sampler.load_state_dict(FORGED[forged](state_after_two_changes()), on_dataset_change="append")
    assert sampler.state_dict() == before


def test_a_state_of_a_later_version_says_to_install_it() -> None:
    later = state_after_two_changes() | {"version": 2, "whatever": 1}
    with pytest.raises(DamagedError, match="of version 2, and this release reads up to 1; install the release"):
        resumed().load_state_dict(later)


plain = st.none() | st.booleans() | st.integers(-3, 2**54) | st.floats() | st.text(max_size=3)
anything = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))


@given(data=st.data())
@settings(deadline=None)
def test_whatever_is_put_into_a_state_it_is_refused_by_name_or_goes_on(data: st.DataObject) -> None:
    state = copy.deepcopy(state_after_two_changes())
    place: object = state
    while isinstance(place, dict | list) and place:
        inner = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[inner], dict | list) or not place[inner] or data.draw(st.booleans()):
            place[inner] = data.draw(anything)
            break
        place = place[inner]
    sampler = resumed()
    before = sampler.state_dict()
    try:
        sampler.load_state_dict(state, on_dataset_change="append")
    except ResumeError:
        assert sampler.state_dict() == before
    else:
        sampler.take(50)
        json.dumps(sampler.state_dict(), allow_nan=False)
