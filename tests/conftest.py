"""Fixtures that more than one folder of tests uses."""

import os
import signal
from pathlib import Path

import pytest

from support.eventful_job import EventfulJob
from support.job_on_disk import JobOnDisk

# In the background of a script (`make test &`) SIGINT is ignored, and would be in all that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def job(tmp_path: Path) -> JobOnDisk:
    return JobOnDisk(tmp_path)


@pytest.fixture
def eventful(tmp_path: Path) -> EventfulJob:
    return EventfulJob(tmp_path)


@pytest.fixture(autouse=True)
def no_configuration_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of the person who runs the tests must not configure them."""
    for name in os.environ:
        if name.startswith("MEGATRON_RESUME_"):
            monkeypatch.delenv(name)
