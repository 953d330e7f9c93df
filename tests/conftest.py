"""Fixtures that more than one folder of tests uses."""

import gc
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from megatron_resume.checkpoint import storage
from support.eventful_job import EventfulJob
from support.job_on_disk import JobOnDisk
from support.pool import Pool
from support.runs import Server

IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ

# Else each of the hundreds of interpreters that tests start compiles the package anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# In the background of a script (`make test &`) SIGINT is ignored, and would be in all that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


# An example that takes long is no failure: on a busy machine each may.
settings.register_profile("whole", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=30)

WITH_MEGATRON = ("adapter", "real_megatron")  # folders whose modules import it, or start what does


IN_MEMORY = Path("/dev/shm")
ROOM = 2 << 30  # bytes; a container may have 64 MiB


def is_fast(config: pytest.Config) -> bool:
    return "not megatron" in config.option.markexpr


def pytest_configure(config: pytest.Config) -> None:
    """Let `make test FAST=1` draw fewer examples, and write to memory where there is a folder for that, not a disk."""
    settings.load_profile("fast" if is_fast(config) else "whole")
    if is_fast(config) and os.access(IN_MEMORY, os.W_OK) and shutil.disk_usage(IN_MEMORY).free > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(IN_MEMORY))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Spare `make test FAST=1` the seconds in which Megatron is imported."""
    return (is_fast(config) and collection_path.name in WITH_MEGATRON) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest come first and then those that wait, so that no core idles at the end; what needs torch together."""
    order = {"test_fault_tolerance.py": 0, "test_minimal.py": 1, "test_parent.py": 2}
    folders = {"real_megatron": 3, "watch": 5}

    def place(item: pytest.Item) -> int:
        others = folders.get(item.path.parent.name, 4 if item.get_closest_marker("torch") else 6)
        return order.get(item.path.name, others)

    items.sort(key=place)
    for item in items:
        if item.path.parent.name in WITH_MEGATRON or "pool" in getattr(item, "fixturenames", ()):
            item.add_marker("megatron")


def pytest_collection_finish() -> None:
    """Let the collector of garbage look at what tests make, and not at all that was collected of them."""
    gc.freeze()
    gc.set_threshold(20_000)


@pytest.fixture
def job(tmp_path: Path) -> JobOnDisk:
    return JobOnDisk(tmp_path)


@pytest.fixture
def eventful(tmp_path: Path) -> EventfulJob:
    return EventfulJob(tmp_path)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this test run have in common."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if IS_WORKER else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def torch_pool(shared_folder: Path) -> Pool:
    """What has imported torch, and beside it what has not, for all workers; it ends with the test run."""
    return Pool(shared_folder, os.getppid() if IS_WORKER else os.getpid())


@pytest.fixture(scope="session")
def pool(torch_pool: Pool) -> Pool:
    """The same for what needs Megatron, too, which is imported when it is first asked for."""
    return torch_pool


@pytest.fixture(scope="session")
def server(pool: Pool) -> Iterator[Server]:
    """Runs the jobs of this worker."""
    started = Server(pool)
    yield started
    started.close()


@pytest.fixture(autouse=True)
def no_patience_from_tests_before() -> Iterator[None]:
    """A start in this process may have asked a storage to be waited for, as one thread does until it ends."""
    with storage.patience(0):
        yield


@pytest.fixture(autouse=True)
def no_configuration_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of the person who runs the tests must not configure them."""
    for name in os.environ:
        if name.startswith("MEGATRON_RESUME_"):
            monkeypatch.delenv(name)
