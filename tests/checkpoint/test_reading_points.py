"""Whatever lies in the folder, a point is read whole or passed over with a reason; never a traceback."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megatron_resume.checkpoint import attempts, records, untrained
from megatron_resume.checkpoint.digests import compute, read_digests, write_digests
from megatron_resume.checkpoint.layout import (
    COMMITTED,
    DATA,
    START,
    PointName,
    attempt_path,
    digests_path,
    point_path,
)
from megatron_resume.checkpoint.records import Manifest
from megatron_resume.errors import ConfigError, DamagedError
from megatron_resume.resume.choose import Resume
from support.job_on_disk import JobOnDisk, contents

NAME = PointName(4, 1)


@pytest.fixture
def two_points(job: JobOnDisk) -> JobOnDisk:
    attempt = job.attempt()
    job.save(attempt, 2)
    assert job.save(attempt, NAME.iteration) == NAME
    return job


def flip_last_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def swap_models(job: JobOnDisk) -> None:
    policy, value = job.model("policy", 4), job.model("value", 4)
    policy.rename(policy.with_name("x"))
    value.rename(policy)
    policy.with_name("x").rename(value)


def link_shard_away(job: JobOnDisk) -> None:
    shard = job.model("policy", 4) / "__0_0.distcp"
    shard.rename(job.base / "elsewhere")
    shard.symlink_to(job.base / "elsewhere")


def point(job: JobOnDisk) -> Path:
    return point_path(job.root, NAME)


DAMAGES: dict[str, tuple[Callable[[JobOnDisk], object], str]] = {
    "empty manifest": (lambda job: (point(job) / COMMITTED).write_bytes(b""), "COMMITTED is damaged"),
    "torn manifest": (lambda job: os.truncate(point(job) / COMMITTED, 40), "COMMITTED is damaged"),
    "manifest is a folder": (
        lambda job: ((point(job) / COMMITTED).unlink(), (point(job) / COMMITTED).mkdir()),
        "not a file",
    ),
    "manifest nested to death": (
        lambda job: (point(job) / COMMITTED).write_bytes(b'{"version":1,"files":' + b"[" * 100_000),
        "COMMITTED is damaged",
    ),
    "manifest of absurd size": (
        lambda job: os.truncate(point(job) / COMMITTED, Manifest.max_bytes + 1),
        "none of our records",
    ),
    "later version": (lambda job: rewrite(point(job) / COMMITTED, version=2), "has version 2"),
    "manifest of another point": (
        lambda job: rewrite(point(job) / COMMITTED, iteration=5),
        "belongs to iteration 5",
    ),
    "manifest names a way out": (
        lambda job: rewrite(point(job) / COMMITTED, files={"../../etc": {"size": 1, "sha256": ""}, **named(job)}),
        "which is no file of a point",
    ),
    "manifest leaves the receipt out": (
        lambda job: rewrite(point(job) / COMMITTED, files={DATA: named(job)[DATA]}),
        "does not name policy.json, value.json",
    ),
    "receipt flipped": (
        lambda job: flip_last_bit(point(job) / "policy.json"),
        "other bytes than were committed",
    ),
    "receipt missing": (lambda job: (point(job) / "value.json").unlink(), "value.json is missing"),
    "data longer": (lambda job: os.truncate(point(job) / DATA, 10_000), "other bytes than were committed"),
    "model missing": (lambda job: shutil.rmtree(job.model("value", 4)), "is missing"),
    "shard missing": (lambda job: (job.model("value", 4) / "__0_0.distcp").unlink(), "cannot be read"),
    "shard short": (lambda job: os.truncate(job.model("policy", 4) / "__0_0.distcp", 3), "3 bytes"),
    "shard flipped": (
        lambda job: flip_last_bit(job.model("policy", 4) / "__0_0.distcp"),
        "other bytes than were saved",
    ),
    "shard linked away": (link_shard_away, "symbolic link"),
    "metadata of Megatron empty": (
        lambda job: os.truncate(job.model("policy", 4) / ".metadata", 0),
        "0 bytes",
    ),
    "models of two roles swapped": (swap_models, "were saved"),
    "an older copy put back": (
        lambda job: shutil.copytree(job.model("policy", 2), job.model("policy", 4), dirs_exist_ok=True),
        "other bytes than were saved",
    ),
}


def named(job: JobOnDisk) -> dict[str, object]:
    files: dict[str, object] = json.loads((point(job) / COMMITTED).read_text())["files"]
    return files


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_point_is_passed_over_with_its_reason_for_the_older_one(two_points: JobOnDisk, damage: str) -> None:
    apply, reason = DAMAGES[damage]
    apply(two_points)
    outcome = two_points.choose()
    assert isinstance(outcome, Resume)
    assert outcome.point.name == PointName(2, 1)
    (passed,) = outcome.passed_over
    assert passed.point == NAME
    assert reason in passed.reason


def test_reading_changes_nothing_on_disk(two_points: JobOnDisk) -> None:
    before = contents(two_points.base)
    two_points.choose()
    assert contents(two_points.base) == before


def test_a_job_that_was_moved_with_its_models_is_still_whole(two_points: JobOnDisk, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("data_checkpoint", "checkpoints"):
        (tmp_path / name).rename(moved / name)
    job = JobOnDisk(moved)
    assert job.point(NAME).directories["policy"] == moved / "checkpoints" / "policy"


def test_a_copied_job_uses_its_own_models_and_content_decides(two_points: JobOnDisk, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for name in ("data_checkpoint", "checkpoints"):
        shutil.copytree(tmp_path / name, copy / name, copy_function=shutil.copyfile)  # other mtimes and inodes
    job = JobOnDisk(copy)
    assert job.point(NAME).directories["value"] == copy / "checkpoints" / "value"


def test_foreign_files_are_not_taken_for_ours(two_points: JobOnDisk) -> None:
    root = two_points.root
    (root / "iter_0000009.a0001.bak").mkdir()
    (root / "iter_9.a1").mkdir()
    (root / "replica0_step4").mkdir()
    (root / "notes.txt").write_text("hello")
    (root / "iter_0000008.a0001").write_text("a file with a point's name")
    (root / "attempts" / "latest").write_text("2")
    outcome = two_points.choose()
    assert isinstance(outcome, Resume)
    assert outcome.point.name == NAME


def test_a_path_that_is_no_folder_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "data_checkpoint").write_text("")
    with pytest.raises(ConfigError, match="cannot be read: Not a directory; name a folder"):
        JobOnDisk.folder(type("Job", (), {"root": tmp_path / "data_checkpoint"})())


def taken_away_while_read(monkeypatch: pytest.MonkeyPatch, path: Path, take_away: Callable[[], object]) -> None:
    read = records.read

    def overtaken(asked: Path, kind: Any) -> Any:
        if asked == path:
            take_away()
        return read(asked, kind)

    monkeypatch.setattr(records, "read", overtaken)


@pytest.mark.parametrize("leaves", [attempts.withdraw, attempts.give_back])
def test_a_start_that_withdraws_while_another_one_reads_is_no_damage(
    job: JobOnDisk, monkeypatch: pytest.MonkeyPatch, leaves: Callable[[Path, int], None]
) -> None:
    """As where several starts run at once, and one of them finds that it has lost."""
    job.save(job.attempt(), 2)
    loser = job.attempt()
    path = attempt_path(job.root, loser) / START
    taken_away_while_read(monkeypatch, path, lambda: leaves(job.root, loser))
    found = job.folder()
    assert (sorted(found.starts), found.damaged_starts) == ([1], {})
    assert isinstance(job.choose(), Resume)


def test_an_attempt_that_trains_while_somebody_looks_is_no_damage(
    job: JobOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first train step takes back that it has not trained."""
    first = job.save(job.attempt(), 2)
    newest = job.attempt(first)
    untrained.write_untrained(job.root, newest, first)
    path = attempt_path(job.root, newest) / untrained.UNTRAINED
    taken_away_while_read(monkeypatch, path, lambda: untrained.take_back(job.root, newest))
    assert job.folder().goes_on_at(job.folder().starts[newest]) == first


def test_digests_that_retention_removes_while_somebody_looks_are_not_damaged(
    job: JobOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = job.attempt()
    name = job.save(attempt, 2)
    receipt = job.point(name).receipts["policy"]
    write_digests(job.root, compute(job.model("policy", 2), receipt, lambda _: None))
    path = digests_path(job.root, name, "policy")
    taken_away_while_read(monkeypatch, path, path.unlink)
    assert read_digests(job.root, receipt) is None


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_bytes_in_any_file_of_ours_never_end_in_a_traceback_or_a_wrong_point(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    job = JobOnDisk(tmp_path_factory.mktemp("job"))
    attempt = job.attempt()
    job.save(attempt, 2)
    job.save(attempt, 4)
    files = sorted(path for path in job.root.rglob("*") if path.is_file())
    victim = data.draw(st.sampled_from(files))
    before = victim.read_bytes()
    # Lengths differ from run to run (inodes have more or fewer digits), what hypothesis draws must not.
    cut, end = sorted(data.draw(st.integers(0, 10_000)) % (len(before) + 1) for _ in range(2))
    after = before[:cut] + data.draw(st.binary(max_size=40)) + before[end:]
    victim.write_bytes(after)
    outcome = job.choose()
    if isinstance(outcome, Resume):
        assert outcome.point.data.progress == job.progress(outcome.point.name)
        assert all(r.iteration == outcome.point.iteration for r in outcome.point.receipts.values())
    else:
        assert outcome.reason


def test_a_receipt_of_another_moment_is_refused_even_when_committed(job: JobOnDisk) -> None:
    attempt = job.attempt()
    name = PointName(2, attempt)
    from megatron_resume.checkpoint import commit
    from megatron_resume.checkpoint.records import Moment

    folder = commit.open_point(job.root, name)
    job.write_receipt("policy", name)
    job.write_receipt("value", name, Moment(episode=1, consumed_samples=16))
    job.write_data(name)
    assert commit.differing_parts(folder, job.roles) == [
        "value at episode 1 and sample 16, the data at episode 2 and sample 32"
    ]
    commit.commit(folder, name, nonce=f"nonce of {attempt}", roles=job.roles)
    with pytest.raises(DamagedError, match="value was saved at"):
        job.point(name)
