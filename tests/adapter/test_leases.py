"""Who is watched, for how long, on a clock that the test turns."""

import errno
import itertools
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import msgspec
import pytest

from megatron_resume.adapter import start
from megatron_resume.adapter.lease_keeper import LeaseKeeper
from megatron_resume.checkpoint import attempts, launch_key, leases
from megatron_resume.checkpoint.launch_key import is_gone
from megatron_resume.checkpoint.leases import Lease, Watch
from megatron_resume.checkpoint.records import Launch
from megatron_resume.config import ResumeConfig
from megatron_resume.errors import HeldError, RejoinError, ResumeError
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
    watch = Watch(job.root, LEASE_TIME_S)
    assert not watch.lives(1, "policy")
    awake = leases.renew(job.root, 1, "policy", elsewhere)
    clock.tick = lambda: leases.renew(job.root, 1, "policy", awake)
    assert watch.lives(1, "policy")


@pytest.mark.parametrize("failing", [{1}, {2}, {3, 4}, set(range(2, 40))], ids=str)
def test_a_lease_that_cannot_be_read_for_a_moment_is_nobodys_death(
    job: JobOnDisk, clock: Clock, elsewhere: Lease, failing: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS, where a lease that another client replaced gives ESTALE."""
    reads = fails_to_read(monkeypatch, errno.ESTALE, failing)
    renewed = [elsewhere]

    def renew_three_times_in_a_lease_time() -> None:
        if clock.now >= (renewed[0].counter + 1) * LEASE_TIME_S / 3:
            renewed[0] = leases.renew(job.root, 1, "policy", renewed[0])

    clock.tick = renew_three_times_in_a_lease_time
    assert Watch(job.root, LEASE_TIME_S).lives(1, "policy")
    assert next(reads) > min(failing)


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EIO, RejoinError), (errno.ESTALE, RejoinError), (errno.EACCES, HeldError)]
)
def test_a_lease_that_cannot_be_read_at_all_is_not_free(
    job: JobOnDisk,
    clock: Clock,
    elsewhere: Lease,
    number: int,
    kind: type[ResumeError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fails_to_read(monkeypatch, number, set(range(1000)))
    config = ResumeConfig(data_checkpoint_path=str(job.root), resume_lease_time=int(LEASE_TIME_S))
    with pytest.raises(kind, match=f"nobody can tell who holds policy .*: {os.strerror(number)}"):
        start.begin_or_join(job.root, config, start.watch(job.root, config))
    assert clock.now >= LEASE_TIME_S
    assert attempts.attempt_numbers(job.root) == [1]
    allowed = msgspec.structs.replace(config, take_over=True)
    assert start.begin_or_join(job.root, allowed, start.watch(job.root, allowed)).start.attempt == 2


def test_a_torn_lease_is_free_once_nobody_has_mended_it_for_a_lease_time(
    job: JobOnDisk, clock: Clock, elsewhere: Lease
) -> None:
    leases.lease_path(job.root, 1, "policy").write_bytes(b'{"holder"')
    assert not Watch(job.root, LEASE_TIME_S).lives(1, "policy")
    assert clock.now >= LEASE_TIME_S
    clock.tick = lambda: leases.renew(job.root, 1, "policy", elsewhere)
    assert Watch(job.root, LEASE_TIME_S).lives(1, "policy")


def test_a_holder_is_waited_for_as_long_as_it_may_give_no_sign(job: JobOnDisk, clock: Clock, elsewhere: Lease) -> None:
    slow = msgspec.structs.replace(elsewhere, time_s=10 * LEASE_TIME_S)
    leases.renew(job.root, 1, "policy", slow)
    assert not Watch(job.root, LEASE_TIME_S).lives(1, "policy")
    assert clock.now == 10 * LEASE_TIME_S


def test_how_often_a_launch_was_restarted_is_no_proof_of_death(
    job: JobOnDisk, clock: Clock, elsewhere: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By torchrun with the --rdzv-id that somebody typed again."""
    again = msgspec.structs.replace(job.launch(elsewhere.holder.job), restart=elsewhere.holder.restart + 1)
    monkeypatch.setattr(start, "launch_key", lambda _: again)
    clock.tick = lambda: leases.renew(job.root, 1, "policy", elsewhere)
    config = ResumeConfig(data_checkpoint_path=str(job.root), resume_lease_time=int(LEASE_TIME_S))
    with pytest.raises(HeldError, match="policy is held by process"):
        start.decide_on_rank_0(job.root, config, start.watch(job.root, config))


@pytest.mark.parametrize("number", [errno.EBADMSG, errno.EUCLEAN])
def test_a_lease_that_the_file_system_lost_is_free_after_a_lease_time(
    job: JobOnDisk, clock: Clock, elsewhere: Lease, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_to_read(monkeypatch, number, set(range(1000)))
    assert not Watch(job.root, LEASE_TIME_S).lives(1, "policy")
    assert LEASE_TIME_S <= clock.now < 2 * LEASE_TIME_S


@pytest.mark.parametrize("time_s", ["1e300", "-1.0", "86401.0"])
def test_a_lease_of_an_impossible_length_is_watched_for_the_readers_own(
    job: JobOnDisk, clock: Clock, elsewhere: Lease, time_s: str
) -> None:
    path = leases.lease_path(job.root, 1, "policy")
    path.write_bytes(path.read_bytes().replace(b'"time_s": 0.0', f'"time_s": {time_s}'.encode()))
    assert isinstance(leases.place(job.root, 1, "policy"), leases.Damaged)
    assert not Watch(job.root, LEASE_TIME_S).lives(1, "policy")
    assert LEASE_TIME_S <= clock.now < 2 * LEASE_TIME_S


def test_a_release_is_the_last_word_also_beside_a_renewal(job: JobOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt, lease = job.attempt(), Lease(holder=job.launch("any"), start="")
    leases.claim(job.root, attempt, "policy", lease)
    begun, goes_on, renew = threading.Event(), threading.Event(), leases.renew

    def slowly(*args: Any) -> Lease:
        begun.set()
        goes_on.wait()
        return renew(*args)

    keeper = LeaseKeeper(job.root, attempt, {"policy": lease}, lease_time_s=3600)
    monkeypatch.setattr(leases, "renew", slowly)
    threads = [threading.Thread(target=keeper._renew), threading.Thread(target=keeper.release)]
    threads[0].start()
    begun.wait()
    threads[1].start()
    threads[1].join(0.2)  # it waits for the other
    goes_on.set()
    for thread in threads:
        thread.join()
    keeper._renew()
    found = leases.place(job.root, attempt, "policy")
    assert isinstance(found, Lease)
    assert found.released


def fails_to_read(monkeypatch: pytest.MonkeyPatch, number: int, failing: set[int]) -> Iterator[int]:
    """Reading a lease fails these times, counted from 0; tells how many reads there were."""
    count, read = itertools.count(), leases.open_plain

    def open_plain(path: Path) -> BinaryIO:
        if next(count) in failing:
            raise OSError(number, os.strerror(number), str(path))
        return read(path)

    monkeypatch.setattr(leases, "open_plain", open_plain)
    return count


class TestWhoIsGone:
    """Proof of death is of one who may see it, on the same boot of the same host and name space."""

    @pytest.fixture
    def ended(self, job: JobOnDisk) -> Launch:
        """A process of this machine that has ended."""
        process = subprocess.Popen(["true"])
        process.wait()
        return self.launch(job, process.pid, started="1")

    @staticmethod
    def launch(job: JobOnDisk, pid: int, started: str) -> Launch:
        here = {"host": socket.gethostname(), "boot": launch_key.boot()}
        launch: Launch = msgspec.structs.replace(job.launch("any"), pid=pid, started=started, **here)
        return launch

    def test_one_that_ended_here_is(self, ended: Launch) -> None:
        assert is_gone(ended) is True

    @pytest.mark.parametrize("other", [{"boot": "of another start"}, {"boot": ""}, {"host": "a copy of this machine"}])
    def test_of_another_machine_nobody_here_can_tell(self, ended: Launch, other: dict[str, str]) -> None:
        assert is_gone(msgspec.structs.replace(ended, **other)) is None

    def test_one_that_lives_is_not_and_its_number_may_be_given_again(self, job: JobOnDisk) -> None:
        started = launch_key.started(os.getpid())
        assert started is not None
        assert is_gone(self.launch(job, os.getpid(), started)) is False
        assert is_gone(self.launch(job, os.getpid(), "1")) is True

    def test_one_that_may_not_be_looked_at_is_not_known_to_be(
        self, job: JobOnDisk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As where /proc is mounted with hidepid: it is not listed there, and a signal says that it is."""
        monkeypatch.setattr(launch_key, "_stat", lambda _: None)
        assert is_gone(self.launch(job, os.getpid(), "1")) is None

    def test_one_that_ended_and_was_not_collected_is(self, job: JobOnDisk) -> None:
        process = subprocess.Popen(["true"])
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert is_gone(self.launch(job, process.pid, "1")) is True
        process.wait()

    def test_one_whose_first_thread_ended_lives_as_long_as_others_do(
        self, job: JobOnDisk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(launch_key, "_stat", lambda _: ("Z", "1", 2))
        assert is_gone(self.launch(job, os.getpid(), "1")) is False
        monkeypatch.setattr(launch_key, "_stat", lambda _: ("Z", "1", 1))
        assert is_gone(self.launch(job, os.getpid(), "1")) is True

    def test_where_proc_counts_otherwise_than_the_process_nobody_can_tell(
        self, ended: Launch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As in a name space of its own that has the /proc of the machine."""
        monkeypatch.setattr(os, "readlink", lambda _: "12345678")
        assert launch_key.boot() == ""
        assert is_gone(ended) is None

    def test_the_first_process_of_a_container_is_a_launch_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its parent cannot be seen; and it is the first in the next container, too."""
        monkeypatch.setattr(os, "getppid", lambda: 0)
        jobs = {launch_key.launch_key({}).job}
        monkeypatch.setattr(launch_key, "boot", lambda: "another boot")
        jobs.add(launch_key.launch_key({}).job)
        monkeypatch.setattr(launch_key, "started", lambda _: "2")
        jobs.add(launch_key.launch_key({}).job)
        assert len(jobs) == 3
