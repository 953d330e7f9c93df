"""Digests that were computed after the commit vouch for large files where size and time cannot."""

import os
from pathlib import Path

import msgspec
import pytest

from megatron_resume.checkpoint import model_files
from megatron_resume.checkpoint.digests import compute, read_digests
from megatron_resume.checkpoint.layout import PointName, digests_path, point_path
from megatron_resume.checkpoint.records import ModelDigests, Receipt, encode, read
from megatron_resume.errors import DamagedError
from megatron_resume.resume.choose import Outcome, Refused, Resume
from support.job_on_disk import JobOnDisk, contents

NAME = PointName(2, 1)


@pytest.fixture
def large(job: JobOnDisk, monkeypatch: pytest.MonkeyPatch) -> JobOnDisk:
    """A job with one point, whose shards are too large for a digest in their receipts."""
    monkeypatch.setattr(model_files, "DIGEST_UP_TO", 30)
    job.save(job.attempt(), NAME.iteration)
    return job


def shard(job: JobOnDisk) -> Path:
    return job.model("policy", NAME.iteration) / "__0_0.distcp"


def receipt(job: JobOnDisk) -> Receipt:
    return read(point_path(job.root, NAME) / "policy.json", Receipt)


def copy_without_its_time(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    os.utime(path, ns=(0, 1))


def flip_a_byte(path: Path) -> None:
    data = path.read_bytes()
    with open(path, "r+b") as file:
        file.write(bytes([data[0] ^ 1]))


def why_refused(outcome: Outcome) -> str:
    assert isinstance(outcome, Refused)
    return outcome.passed_over[0].reason


def test_without_digests_a_copy_with_another_time_is_refused(large: JobOnDisk) -> None:
    copy_without_its_time(shard(large))
    assert "was written to since it was saved" in why_refused(large.choose())


def test_with_digests_a_copy_with_another_time_is_taken_for_its_content(large: JobOnDisk) -> None:
    large.keep_digests(NAME)
    copy_without_its_time(shard(large))
    assert isinstance(large.choose(), Resume)


def test_with_digests_other_content_is_still_refused(large: JobOnDisk) -> None:
    large.keep_digests(NAME)
    flip_a_byte(shard(large))
    assert "holds other bytes than were saved" in why_refused(large.choose())


def test_content_that_changes_again_is_read_again(large: JobOnDisk) -> None:
    large.keep_digests(NAME)
    copy_without_its_time(shard(large))
    assert isinstance(large.choose(), Resume)
    flip_a_byte(shard(large))
    assert isinstance(large.choose(), Refused)


def test_a_file_that_is_as_it_was_saved_is_not_read(large: JobOnDisk) -> None:
    large.keep_digests(NAME)
    before, data = shard(large).stat(), shard(large).read_bytes()
    shard(large).write_bytes(b"x" * len(data))  # which only reading could tell
    os.utime(shard(large), ns=(before.st_atime_ns, before.st_mtime_ns))
    assert isinstance(large.choose(), Resume)


def test_a_file_that_changed_since_it_was_saved_gets_no_digest(large: JobOnDisk) -> None:
    flip_a_byte(shard(large))
    assert compute(shard(large).parent, receipt(large), lambda size: None).files == ()


def test_a_file_that_changes_while_it_is_read_gets_no_digest(large: JobOnDisk) -> None:
    assert compute(shard(large).parent, receipt(large), lambda size: flip_a_byte(shard(large))).files == ()


def test_every_byte_that_is_read_is_told(large: JobOnDisk) -> None:
    told: list[int] = []
    (file,) = compute(shard(large).parent, receipt(large), told.append).files
    assert sum(told) == file.size == shard(large).stat().st_size
    assert file.sha256 == model_files.sha256_of(shard(large))


def test_a_committed_point_stays_as_it_is(large: JobOnDisk) -> None:
    before = contents(point_path(large.root, NAME))
    large.keep_digests(NAME)
    assert contents(point_path(large.root, NAME)) == before


def test_damaged_digests_vouch_for_nothing(large: JobOnDisk) -> None:
    large.keep_digests(NAME)
    os.truncate(digests_path(large.root, NAME, "policy"), 50)
    assert isinstance(large.choose(), Resume), "time still vouches for the file"
    copy_without_its_time(shard(large))
    assert "was written to since it was saved" in why_refused(large.choose())


@pytest.mark.parametrize("other", [{"nonce": "of another life"}, {"role": "value"}, {"iteration": 3}, {"attempt": 2}])
def test_digests_of_another_model_vouch_for_nothing(large: JobOnDisk, other: dict[str, object]) -> None:
    large.keep_digests(NAME)
    path = digests_path(large.root, NAME, "policy")
    path.write_bytes(encode(msgspec.structs.replace(read(path, ModelDigests), **other)))
    with pytest.raises(DamagedError, match="belongs to another model"):
        read_digests(large.root, receipt(large))
    copy_without_its_time(shard(large))
    assert isinstance(large.choose(), Refused)


def test_a_digest_of_the_file_at_another_time_vouches_for_nothing(large: JobOnDisk) -> None:
    large.keep_digests(NAME)
    path = digests_path(large.root, NAME, "policy")
    digests = read(path, ModelDigests)
    files = tuple(msgspec.structs.replace(file, mtime_ns=file.mtime_ns + 1) for file in digests.files)
    path.write_bytes(encode(msgspec.structs.replace(digests, files=files)))
    copy_without_its_time(shard(large))
    assert isinstance(large.choose(), Refused)
