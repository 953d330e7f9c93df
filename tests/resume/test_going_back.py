"""An attempt that went back, or began anew, and never trained costs the job nothing."""

import pytest

from megatron_resume.checkpoint.layout import PointName
from megatron_resume.checkpoint.records import Request
from megatron_resume.checkpoint.untrained import take_back, write_untrained
from megatron_resume.errors import DamagedError
from megatron_resume.resume.choose import Fresh, Outcome, Refused, Resume, choose, lineage_before
from support.job_on_disk import JobOnDisk


def of(outcome: Outcome) -> PointName:
    assert isinstance(outcome, Resume), outcome
    return outcome.point.name


def failing(job: JobOnDisk, *points: PointName) -> Outcome:
    """The choice after loads of these points failed."""
    return choose(
        job.folder(), Request(), job.launch("a new job"), job.point, dict.fromkeys(points, "loading it failed")
    )


def begin(job: JobOnDisk, outcome: Outcome, requested: Request | None = None) -> int:
    """The attempt of a start, as far as it goes before it trains."""
    assert not isinstance(outcome, Refused), outcome
    newer = lineage_before(job.folder(), outcome)
    attempt = job.attempt(of(outcome) if isinstance(outcome, Resume) else None, requested=requested)
    if newer is not None:
        write_untrained(job.root, attempt, newer)
    return attempt


@pytest.fixture
def points(job: JobOnDisk) -> tuple[PointName, PointName]:
    attempt = job.attempt()
    return job.save(attempt, 3), job.save(attempt, 6)


Points = tuple[PointName, PointName]


def test_if_the_older_point_cannot_be_loaded_either_the_newest_is_taken_again(job: JobOnDisk, points: Points) -> None:
    older, newest = points
    begin(job, job.choose())
    back = failing(job, newest)
    assert of(back) == older
    begin(job, back)
    assert of(failing(job, older, newest)) == newest
    assert of(job.choose()) == newest, "the command was mended"


def test_once_it_trains_it_is_the_lineage(job: JobOnDisk, points: Points) -> None:
    older, newest = points
    attempt = begin(job, failing(job, newest))
    assert of(job.choose()) == newest
    take_back(job.root, attempt)
    take_back(job.root, attempt)
    assert of(job.choose()) == older
    saved = job.save(attempt, 9)
    assert of(job.choose()) == saved


def test_a_late_commit_of_an_earlier_attempt_changes_nothing(job: JobOnDisk, points: Points) -> None:
    _, newest = points
    begin(job, failing(job, newest))
    job.save(newest.attempt, 9)
    assert of(job.choose()) == newest


def test_one_that_went_back_for_damage_leaves_the_point_to_be_restored(job: JobOnDisk, points: Points) -> None:
    older, newest = points
    shard = job.model("policy", newest.iteration) / "__0_0.distcp"
    data = shard.read_bytes()
    shard.write_bytes(b"")
    begin(job, job.choose())
    assert of(job.choose()) == older
    found = shard.stat()
    shard.write_bytes(data)
    assert found.st_size == 0
    assert of(job.choose()) == newest


@pytest.mark.parametrize("times", [1, 2])
def test_a_fresh_start_on_purpose_that_never_trained_leaves_no_claim(
    job: JobOnDisk, points: Points, times: int
) -> None:
    for _ in range(times):
        attempt = begin(job, job.choose(Request(fresh=True)), Request(fresh=True))
    assert of(job.choose()) == points[1]
    take_back(job.root, attempt)
    outcome = job.choose()
    assert isinstance(outcome, Refused)
    assert "began anew on purpose and committed nothing" in outcome.reason


def test_what_is_asked_for_is_the_lineage_at_once_and_so_is_what_lost_nothing(job: JobOnDisk, points: Points) -> None:
    older, _ = points
    asked = Request(iteration=3)
    assert of(job.choose(asked)) == older
    assert lineage_before(job.folder(), job.choose(asked)) is None
    assert lineage_before(job.folder(), job.choose(Request(start_over=True))) is None
    assert lineage_before(job.folder(), job.choose()) is None
    begin(job, job.choose(asked), asked)
    assert of(job.choose()) == older


def test_without_a_commit_there_is_no_lineage_to_keep(job: JobOnDisk) -> None:
    job.save(job.attempt(), 3, parts=("policy",))
    outcome = job.choose()
    assert isinstance(outcome, Fresh)
    assert lineage_before(job.folder(), outcome) is None


def test_a_record_of_it_that_is_damaged_ends_the_start(job: JobOnDisk, points: Points) -> None:
    attempt = begin(job, failing(job, points[1]))
    (job.root / f"attempts/{attempt:04d}/untrained.json").write_text("{")
    with pytest.raises(DamagedError, match=r"untrained\.json"):
        job.choose()
