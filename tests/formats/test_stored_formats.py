"""Every folder that a released version wrote is still read, whole or with its reason."""

from pathlib import Path

import msgspec
import pytest

from megatron_resume.checkpoint.events import Committed, Events, Failed, read_events
from megatron_resume.checkpoint.layout import PointName
from megatron_resume.resume.choose import Outcome, Refused, Resume
from support.job_on_disk import TIME, JobOnDisk

V1 = Path(__file__).parent / "v1"
OLDER_POINT_AND_REASON = {
    "torn_manifest": "COMMITTED is damaged",
    "manifest_of_version_2": "has version 2; this release reads version 1",
    "receipt_missing": "value.json is missing",
    "data_changed": "data.json holds other bytes than were committed",
    "shard_missing": "__0_0.distcp cannot be read",
    "shard_changed": "were saved",
    "digests_torn": "was written to since it was saved",
    "never_committed": "never committed, though all of it was saved",
}


def outcome_of(name: str) -> Outcome:
    """What the next start would do with the stored job: as cloned, so mtimes and inodes are not those saved."""
    return JobOnDisk(V1 / name).choose()


WHOLE = ("whole", "start_torn", "events_torn", "digests_kept", "data_elsewhere", "tensors_listed")


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_job_resumes_from_its_newest_point(name: str) -> None:
    outcome = outcome_of(name)
    assert isinstance(outcome, Resume)
    assert outcome.point.name == PointName(4, 1)
    assert outcome.point.data.tracked == {"kl": {"coefficient": 0.1}}
    assert outcome.point.data.progress.consumed_samples == 64


def test_what_an_import_could_not_know_is_no_value() -> None:
    outcome = outcome_of("imported")
    assert isinstance(outcome, Resume)
    assert outcome.point.name == PointName(4, 1)
    receipt = outcome.point.receipts["policy"]
    unknown = (receipt.consumed_train_samples, receipt.scheduler_steps, receipt.versions, receipt.arguments)
    assert (*unknown, outcome.point.data.tracked) == (msgspec.UNSET,) * 5
    assert (receipt.format, outcome.point.data.progress.consumed_samples) == ("torch_dist", 64)


def test_tensors_are_listed_or_were_not_yet() -> None:
    listed, older = outcome_of("tensors_listed"), outcome_of("whole")
    assert isinstance(listed, Resume) and isinstance(older, Resume)
    held = listed.point.receipts["policy"].tensors
    assert held is not msgspec.UNSET
    assert held["model"]["decoder.weight"] == "tensor bfloat16 [64, 64]"
    assert older.point.receipts["policy"].tensors is msgspec.UNSET


@pytest.mark.parametrize("name", OLDER_POINT_AND_REASON)
def test_a_damaged_point_is_passed_over_for_the_older_one(name: str) -> None:
    outcome = outcome_of(name)
    assert isinstance(outcome, Resume)
    assert outcome.point.name == PointName(2, 1)
    assert OLDER_POINT_AND_REASON[name] in outcome.passed_over[0].reason


def test_with_nothing_whole_left_the_start_is_refused() -> None:
    outcome = outcome_of("all_damaged")
    assert isinstance(outcome, Refused)
    assert outcome.damaged


def test_events_are_read_up_to_a_torn_last_line() -> None:
    committed = [Committed(time=TIME, iteration=iteration) for iteration in (2, 4)]
    failed = Failed(time=TIME, error="RuntimeError", message="NCCL timeout", exit_code=1)
    assert read_events(JobOnDisk(V1 / "events_torn").events(1)) == Events((*committed, failed), None)


def test_every_stored_job_is_looked_at() -> None:
    known = {*WHOLE, "imported", "all_damaged", *OLDER_POINT_AND_REASON}
    assert {path.name for path in V1.iterdir()} == known
