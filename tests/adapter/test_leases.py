"""Who is watched, for how long, on a clock that the test turns."""

from collections.abc import Callable
from types import SimpleNamespace

import msgspec
import pytest

from megatron_resume.adapter import start
from megatron_resume.checkpoint import leases
from megatron_resume.checkpoint.leases import Lease, Watch
from megatron_resume.checkpoint.records import Launch
from megatron_resume.config import ResumeConfig
from support.job_on_disk import JobOnDisk

LEASE_TIME_S = 30.0


class Clock:
    """Time passes only while somebody sleeps; `tick` is called meanwhile."""

    def __init__(self) -> None:
        self.now = 0.0
        self.tick: Callable[[], object] = lambda: None

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.tick()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(leases, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=clock.sleep))
    return clock


@pytest.fixture
def elsewhere(job: JobOnDisk) -> Lease:
    """The lease that a process on another machine holds on both roles of attempt 1."""
    holder: Launch = msgspec.structs.replace(job.launch("another"), boot="boot of another machine")
    lease = Lease(holder=holder, start="another start")
    attempt = job.attempt()
    for role in job.roles:
        leases.claim(job.root, attempt, role, lease)
    return lease


def test_a_dead_holder_elsewhere_costs_a_start_one_lease_time(job: JobOnDisk, clock: Clock, elsewhere: Lease) -> None:
    config = ResumeConfig(data_checkpoint_path=str(job.root), resume_lease_time=int(LEASE_TIME_S))
    watch = start.watch(job.root, config)
    start.decide_on_rank_0(job.root, config, watch)
    assert clock.now == LEASE_TIME_S
    begun = start.begin_or_join(job.root, config, watch)
    assert begun.start.attempt == 2
    assert clock.now == LEASE_TIME_S


def test_a_holder_that_wakes_after_it_was_watched_in_vain_is_watched_again(
    job: JobOnDisk, clock: Clock, elsewhere: Lease
) -> None:
    watch = Watch(job.root, job.launch("mine"), LEASE_TIME_S)
    assert not watch.lives(1, "policy")
    awake = leases.renew(job.root, 1, "policy", elsewhere)
    clock.tick = lambda: leases.renew(job.root, 1, "policy", awake)
    assert watch.lives(1, "policy")
