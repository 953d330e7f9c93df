"""A storage that does not answer while a job runs: that ends no job, and is never taken for a newer attempt."""

import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from megatron_resume.adapter import save_folders, saving
from megatron_resume.adapter.ending import naming_the_path
from megatron_resume.adapter.lease_keeper import LeaseKeeper
from megatron_resume.checkpoint import fencing, leases
from megatron_resume.checkpoint.leases import Lease
from megatron_resume.errors import ConfigError, RejoinError, UnreadableError
from support.failing_storage import failing
from support.job_on_disk import JobOnDisk


@pytest.fixture
def keeper(job: JobOnDisk) -> Iterator[LeaseKeeper]:
    """Of an attempt that is superseded by another."""
    attempt = job.attempt()
    lease = Lease(holder=job.launch(), start="")
    leases.claim(job.root, attempt, "policy", lease)
    made = LeaseKeeper(job.root, attempt, {"policy": lease}, 100_000.0)  # its thread renews nothing meanwhile
    yield made
    made.release()


@pytest.mark.parametrize("name", ["data_checkpoint/attempts", "attempts/0002/start.json"])
@pytest.mark.parametrize("number", [errno.ESTALE, errno.EACCES])
def test_a_lease_is_renewed_though_nobody_can_tell_whether_a_newer_attempt_began(
    job: JobOnDisk, keeper: LeaseKeeper, name: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    job.attempt()
    with failing(name, number) as fault:
        keeper._renew()
    assert fault.fired
    lease = leases.read_lease(job.root, 1, "policy")
    assert (lease.counter if lease else None, ended) == (1, [])
    keeper._renew()
    assert ended == [203]


def test_a_save_whose_look_for_a_newer_attempt_fails_is_not_committed_and_goes_on(
    job: JobOnDisk, keeper: LeaseKeeper
) -> None:
    job.attempt()
    current: Any = SimpleNamespace(lease_keeper=keeper, root=job.root)
    with failing("attempts/0002/start.json", errno.ETIMEDOUT) as fault:
        reason = saving._look_for_newer_attempt(current)
    assert fault.fired
    assert reason is not None and "start.json cannot be read: Connection timed out" in reason
    with pytest.raises(RejoinError):
        saving._look_for_newer_attempt(current)


def test_a_name_that_cannot_be_read_at_a_save_is_not_one_that_was_taken_away(
    job: JobOnDisk, caplog: pytest.LogCaptureFixture
) -> None:
    attempt = job.attempt()
    fencing.make_own_name(job.root, attempt, "policy", "/save")
    current: Any = SimpleNamespace(fenced={"policy"}, root=job.root, attempt=attempt, save_folders={"policy": "/save"})
    with failing("policy.save", errno.EIO) as fault, caplog.at_level(logging.WARNING):
        save_folders._check_name(current, "policy")
    assert fault.fired
    assert "policy.save cannot be read: Input/output error" in caplog.text
    fencing.take_name(job.root, attempt, "policy")
    with pytest.raises(RejoinError):
        save_folders._check_name(current, "policy")


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [
        (errno.ESTALE, UnreadableError, 203),
        (errno.ETIMEDOUT, UnreadableError, 203),
        (errno.EACCES, ConfigError, 78),
        (errno.EROFS, ConfigError, 78),
        (errno.ENOSPC, ConfigError, 78),
        (errno.ENOENT, ConfigError, 78),
    ],
)
def test_a_start_that_cannot_write_is_restarted_only_where_that_may_pass(
    tmp_path: Path, number: int, kind: type[Exception], code: int
) -> None:
    with pytest.raises(kind, match=os.strerror(number)) as raised, naming_the_path(tmp_path):
        raise OSError(number, os.strerror(number), str(tmp_path / "attempts"))
    assert cast(Any, raised.value).exit_code == code
