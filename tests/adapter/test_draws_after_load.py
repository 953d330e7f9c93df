"""Random numbers that are drawn after the load are named, and never drawn again."""

import logging
import random
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from megatron.core import tensor_parallel
from megatron.training import global_vars

from megatron_resume.adapter import loading, random_states, rng, session
from megatron_resume.checkpoint.records import Rng
from megatron_resume.config import ResumeConfig
from megatron_resume.resume.choose import Resume
from support.job_on_disk import JobOnDisk


@pytest.fixture
def current(job: JobOnDisk, monkeypatch: pytest.MonkeyPatch) -> Iterator[session.Session]:
    """A session that resumes from a point with the random states of now."""
    tracker = tensor_parallel.get_cuda_rng_tracker()
    before = random.getstate(), np.random.get_state(), torch.get_rng_state(), tracker.get_states()
    tracker.set_states({"model-parallel-rng": torch.get_rng_state()})
    point = job.point(job.save(job.attempt(), 2))
    states = Rng(state_of_rank=(0,), layout=rng.layout())
    point = msgspec.structs.replace(point, data=msgspec.structs.replace(point.data, rng=states))
    begun = session.Session(
        ResumeConfig(data_checkpoint_path=str(job.root), trained_roles=job.roles),
        Path(job.root),
        _outcome=Resume(point, ""),
        save_folders={role: str(job.save_folder(role)) for role in job.roles},
        arrays={f"rng/0/{name}": array for name, array in rng.capture().arrays().items()},
    )
    monkeypatch.setattr(session, "current", lambda: begun)
    yield begun
    random.setstate(before[0])
    np.random.set_state(before[1])
    torch.set_rng_state(before[2])
    tracker.set_states(before[3])


def change_tracker() -> None:
    tensor_parallel.get_cuda_rng_tracker().set_states({"model-parallel-rng": torch.get_rng_state().roll(8)})


DRAWS: dict[str, Callable[[], object]] = {
    "Python's random": random.random,
    "numpy": np.random.random,
    "torch": lambda: torch.rand(()),
    "Megatron's tracker": change_tracker,
}


@pytest.mark.parametrize("generator", DRAWS)
def test_the_generator_that_drew_after_the_load_is_named(
    current: session.Session, caplog: pytest.LogCaptureFixture, generator: str
) -> None:
    DRAWS[generator]()
    with caplog.at_level(logging.INFO):
        random_states.tell_of_draws(current)
    assert f"drawn from {generator} between" in caplog.text


def test_where_nothing_drew_nothing_is_said(current: session.Session, caplog: pytest.LogCaptureFixture) -> None:
    random_states.restore(current)
    with caplog.at_level(logging.INFO):
        random_states.tell_of_draws(current)
    assert not caplog.text


@pytest.mark.parametrize("trained", [0, 1], ids=["before training", "in training"])
def test_a_load_puts_random_states_back_only_until_training_begins(
    current: session.Session, monkeypatch: pytest.MonkeyPatch, trained: int
) -> None:
    """Also in a loop with a train step of its own, which loads a reference now and then."""
    args = Namespace(resume_role="reference", load=None, pretrained_checkpoint=None)
    monkeypatch.setattr(global_vars, "_GLOBAL_ARGS", args)
    current.trained = trained
    saved = random.getstate()
    random.random()
    drawn = random.getstate()
    loading.wrap_load_checkpoint(lambda model, opt_param_scheduler=None, load_arg="load": (0, 0))(None)
    assert random.getstate() == (drawn if trained else saved)
