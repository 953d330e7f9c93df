"""A storage without links: found before an attempt gets its number, and left as it was."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megatron_resume.adapter import start
from megatron_resume.adapter.ending import naming_the_path
from megatron_resume.checkpoint.attempts import attempt_numbers
from megatron_resume.checkpoint.imported import import_point
from megatron_resume.checkpoint.links import check_links
from megatron_resume.checkpoint.records import Moment
from megatron_resume.config import ResumeConfig
from megatron_resume.errors import ConfigError, UnreadableError
from support.job_on_disk import JobOnDisk, contents

NONE = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EIO, errno.EACCES, errno.EINVAL)


def failing_with(number: int) -> Callable[..., None]:
    def call(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number), str(args[0]), None, str(args[1]))

    return call


def begin(root: Path) -> start.Begun:
    config = ResumeConfig(data_checkpoint_path=str(root), resume_role="policy")
    return start.begin_or_join(root, config, start.watch(root, config))


@pytest.mark.parametrize("number", NONE)
@pytest.mark.parametrize("kind", ["link", "symlink"])
def test_a_start_on_a_storage_without_links_says_so_and_leaves_nothing(
    tmp_path: Path, kind: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, kind, failing_with(number))
    said = f"{os.strerror(number)}: this file system lacks {'hard' if kind == 'link' else 'symbolic'} links"
    for _ in range(2):
        with pytest.raises(ConfigError, match=said):
            begin(tmp_path / "new" / "data_checkpoint")
        assert contents(tmp_path) == {}
    monkeypatch.undo()
    assert begin(tmp_path / "new" / "data_checkpoint").start.attempt == 1


def test_a_job_that_was_copied_to_such_a_storage_keeps_its_numbers(
    job: JobOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(job.base)
    monkeypatch.setattr(os, "link", failing_with(errno.EIO))
    with pytest.raises(ConfigError, match="lacks hard links"):
        begin(job.root)
    assert contents(job.base) == before


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ETIMEDOUT])
def test_a_storage_that_does_not_answer_is_not_one_without_links(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", failing_with(number))
    with pytest.raises(UnreadableError, match=os.strerror(number)):
        begin(tmp_path / "data_checkpoint")
    assert contents(tmp_path) == {}


def test_a_storage_that_writes_nothing_at_all_is_not_one_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", failing_with(errno.EIO))
    written: list[object] = []

    def fails_then(path: object, mode: str) -> None:
        written.append(path)
        if len(written) > 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        Path(str(path)).touch()

    from megatron_resume.checkpoint import links

    monkeypatch.setattr(links, "_write", lambda path: fails_then(path, "xb"))
    with pytest.raises(UnreadableError), naming_the_path(tmp_path):
        check_links(tmp_path)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("fails_at", [2, 3, 4])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_start_that_the_storage_fails_on_the_way_leaves_no_attempt(
    job: JobOnDisk, fails_at: int, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a link: that of the probe is the first, then come the leases and the start record."""
    os.makedirs(job.root / "attempts")
    before, link, calls = contents(job.root), os.link, list[object]()

    def failing(source: Path | str, target: Path | str, **by: Any) -> None:
        calls.append(target)
        if len(calls) == fails_at:
            raise OSError(number, os.strerror(number), str(source), None, str(target))
        link(source, target, **by)

    monkeypatch.setattr(os, "link", failing)
    config = ResumeConfig(data_checkpoint_path=str(job.root), trained_roles=job.roles)
    with pytest.raises((ConfigError, UnreadableError)):
        start.begin_or_join(job.root, config, start.watch(job.root, config))
    assert len(calls) == fails_at
    assert contents(job.root) == before


def test_an_import_to_such_a_storage_leaves_nothing_either(
    job: JobOnDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.save(job.attempt(), 4)
    (job.model("policy", 4) / "metadata.json").write_text('{"sharded_backend": "torch_dist"}')
    new = tmp_path / "new"
    monkeypatch.setattr(os, "link", failing_with(errno.EPERM))
    moment = Moment(episode=1, consumed_samples=16)
    with pytest.raises(ConfigError, match="lacks hard links"):
        import_point(new, {"policy": job.save_folder("policy")}, 4, moment, source={})
    assert not new.exists()
    assert attempt_numbers(job.root) == [1]


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ENOTCONN, errno.EINTR, errno.ENOMEM])
@pytest.mark.parametrize("kind", ["link", "symlink"])
def test_a_link_that_fails_once_is_no_lack(
    tmp_path: Path, kind: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, fails = getattr(os, kind), iter([True])

    def call(*args: Any, **kwargs: Any) -> None:
        if next(fails, False):
            raise OSError(number, os.strerror(number))
        real(*args, **kwargs)

    monkeypatch.setattr(os, kind, call)
    check_links(tmp_path)
    assert contents(tmp_path) == {}
