"""State of a point that somebody forged ends in its name and a reason, not in a traceback of torch."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from megatron_resume.adapter import random_states, rng
from megatron_resume.adapter.session import Session
from megatron_resume.adapter.tracked import Tracked
from megatron_resume.checkpoint.arrays import Arrays
from megatron_resume.checkpoint.records import MAX_NESTING, Rng
from megatron_resume.config import ResumeConfig
from megatron_resume.errors import ConfigError, DamagedError
from megatron_resume.resume.choose import Resume
from megatron_resume.roles import TRAINED
from support.job_on_disk import JobOnDisk


class Controller:
    """Tracked, with any state."""

    def __init__(self, state: Any = None):
        self.state = state

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        self.state = state


@pytest.mark.parametrize(
    "forged",
    [
        {"dtype": "no_such_dtype", "shape": [4]},
        {"dtype": "load", "shape": [4]},
        {"dtype": "float32", "shape": [-7]},
        {"dtype": "float32", "shape": [1 << 62, 1 << 62]},
        {"dtype": "float32", "shape": "four"},
        {"dtype": "float32"},
    ],
)
def test_a_forged_tensor_is_refused(forged: dict[str, Any]) -> None:
    tracked = Tracked()
    tracked.add("kl", Controller())
    state = {"kl": {"$tensor": "tracked/kl", **forged}}
    with pytest.raises(DamagedError, match="tracked state is damaged at"):
        tracked.load("kl", state, {"tracked/kl": np.zeros(16, dtype=np.uint8)}, "the point")


@pytest.mark.parametrize("depth", [MAX_NESTING, 5000])
def test_state_that_no_reader_would_take_is_refused_when_it_is_tracked(depth: int) -> None:
    state: list[Any] = []
    for _ in range(depth - 1):
        state = [state]
    with pytest.raises(ConfigError, match=r"track\('kl', ...\): its state is nested"):
        Tracked().add("kl", Controller(state))


def test_state_nested_as_deep_as_may_be_comes_back(job: JobOnDisk) -> None:
    state: list[Any] = []
    for _ in range(MAX_NESTING - 2):
        state = [state]
    tracked = Tracked()
    tracked.add("kl", Controller(state))
    states, arrays = tracked.capture(0)
    tracked.load("kl", states, arrays, "the point")
    assert tracked.objects["kl"].state_dict() == state


def session(job: JobOnDisk, states: Rng, arrays: Arrays) -> Session:
    point = job.point(job.save(job.attempt(), 2))
    point = msgspec.structs.replace(point, data=msgspec.structs.replace(point.data, rng=states))
    config = ResumeConfig(data_checkpoint_path=str(job.root), trained_roles=TRAINED)
    folders = {role: str(job.save_folder(role)) for role in job.roles}
    return Session(config, Path(job.root), _outcome=Resume(point, ""), save_folders=folders, arrays=arrays)


def whole() -> Arrays:
    return {f"rng/0/{name}": array for name, array in rng.capture().arrays().items()}


FORGED: dict[str, Arrays] = {
    "missing": {},
    "python's too short": {"rng/0/python": np.zeros(3, dtype=np.uint32)},
    "numpy's too short": {"rng/0/numpy": np.zeros(3, dtype=np.uint32)},
    "numpy's of text": {"rng/0/numpy_position": np.zeros(0)},
    "torch's too short": {"rng/0/torch": np.zeros(3, dtype=np.uint8)},
}


@pytest.mark.parametrize("what", FORGED)
def test_forged_random_states_are_refused(job: JobOnDisk, what: str) -> None:
    arrays = {**whole(), **FORGED[what]} if FORGED[what] else {}
    states = Rng(state_of_rank=(0,), layout=rng.layout())
    with pytest.raises(DamagedError, match="the random states of iteration 2 of attempt 1 are damaged"):
        random_states.restore(session(job, states, arrays))


def test_random_states_for_fewer_ranks_than_the_layout_says_are_refused(job: JobOnDisk) -> None:
    with pytest.raises(DamagedError, match="the random states of"):
        random_states.restore(session(job, Rng(state_of_rank=(), layout=rng.layout()), whole()))


def test_whole_random_states_are_restored(job: JobOnDisk) -> None:
    before = whole()
    current = session(job, Rng(state_of_rank=(0,), layout=rng.layout()), before)
    np.random.random()
    random_states.restore(current)
    assert all(np.array_equal(array, before[name]) for name, array in whole().items())
