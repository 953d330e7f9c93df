"""What an evaluation asks less of than a resume."""

import logging
from typing import Any

import msgspec
import pytest

from megatron_resume.adapter import api, loaders, session
from megatron_resume.adapter.evaluation import Evaluation
from megatron_resume.config import ResumeConfig
from megatron_resume.resume.choose import Resume
from support.job_on_disk import JobOnDisk


class Mean:
    value = 0

    def state_dict(self) -> Any:
        return self.value

    def load_state_dict(self, state: Any) -> None:
        self.value = state


def begin(kind: type[session.Session], job: JobOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session of one rank that continues from what two ranks left."""
    point = job.point(job.save(job.attempt(), 2))
    tracked = {"own": {loaders.TAG: [1, 2]}, "shared": 3}
    point = msgspec.structs.replace(point, data=msgspec.structs.replace(point.data, tracked=tracked))
    config = ResumeConfig(data_checkpoint_path=str(job.root), trained_roles=job.roles)
    begun = kind(config, job.root, _outcome=Resume(point, ""))
    monkeypatch.setattr(api, "current", lambda: begun)


def test_state_of_ranks_that_are_not_here_is_named_and_left(
    job: JobOnDisk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begin(Evaluation, job, monkeypatch)
    own, shared = Mean(), Mean()
    with caplog.at_level(logging.WARNING):
        api.track("own", own, per_rank=True)
    api.track("shared", shared)
    assert (own.value, shared.value) == (0, 3)
    assert "'own' begins as the script made it, since nothing is trained here: 'own' holds the position" in caplog.text


def test_a_start_that_trains_is_refused_for_it(job: JobOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(session.Session, job, monkeypatch)
    with pytest.raises(SystemExit) as ended:
        api.track("own", Mean(), per_rank=True)
    assert ended.value.code == 78
