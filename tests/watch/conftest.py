"""Ranks in a folder of their own, ended with the test."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from megatron_resume.processes import descendants
from support.watched_ranks import Ranks


@pytest.fixture
def new_ranks(tmp_path: Path) -> Iterator[Callable[[], Ranks]]:
    """Each has a folder of its own."""
    made: list[Ranks] = []

    def make() -> Ranks:
        folder = tmp_path / f"ranks{len(made)}"
        folder.mkdir()
        made.append(Ranks(folder))
        return made[-1]

    yield make
    for rank in [rank for ranks in made for rank in ranks.started if rank.process.poll() is None]:
        for pid in [rank.process.pid, *descendants(rank.process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        rank.process.wait()


@pytest.fixture
def ranks(new_ranks: Callable[[], Ranks]) -> Ranks:
    return new_ranks()
