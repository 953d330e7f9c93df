"""Which points retention may remove: those of the live line that its newest whole ones make needless."""

import shutil
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_resume.checkpoint.folder import Folder
from megatron_resume.checkpoint.layout import PointName
from megatron_resume.checkpoint.records import Request, Start
from megatron_resume.errors import DamagedError
from megatron_resume.resume.choose import head, live_line
from megatron_resume.resume.retention import surplus
from support.job_on_disk import JobOnDisk


def is_whole(job: JobOnDisk, name: PointName) -> bool:
    try:
        job.point(name)
    except DamagedError:
        return False
    return True


def surplus_of(job: JobOnDisk, keep: int) -> list[PointName]:
    return surplus(job.folder(), keep, lambda name: is_whole(job, name))


def test_all_but_the_newest_go_the_oldest_first(job: JobOnDisk) -> None:
    names = [job.save(job.attempt() if i == 2 else 1, i) for i in (2, 4, 6, 8)]
    assert surplus_of(job, 2) == names[:2]
    assert surplus_of(job, 4) == []


def test_points_that_the_newest_attempt_continued_from_are_counted_with_its_own(job: JobOnDisk) -> None:
    first = [job.save(job.attempt() if i == 2 else 1, i) for i in (2, 4)]
    second = job.attempt(first[-1])
    own = job.save(second, 6)
    assert surplus_of(job, 2) == first[:1]
    assert surplus_of(job, 3) == []
    assert own not in surplus_of(job, 2)


def test_points_of_an_abandoned_line_are_left_alone(job: JobOnDisk) -> None:
    first = [job.save(job.attempt() if i == 2 else 1, i) for i in (2, 4, 6)]
    second = job.attempt(first[0], requested=Request(iteration=2))
    for iteration in (8, 10):  # beyond what the first attempt saved
        job.save(second, iteration)
    assert surplus_of(job, 2) == first[:1]


def test_a_point_whose_model_somebody_deleted_counts_for_nothing(job: JobOnDisk) -> None:
    names = [job.save(job.attempt() if i == 2 else 1, i) for i in (2, 4, 6, 8)]
    shutil.rmtree(job.model("policy", 6))
    assert surplus_of(job, 2) == names[:1]


def test_points_that_were_never_committed_are_neither_counted_nor_removed(job: JobOnDisk) -> None:
    job.save(job.attempt(), 2, parts=("policy",))
    names = [job.save(1, i) for i in (4, 6)]
    job.save(1, 8, parts=("policy", "value", "data"))
    assert surplus_of(job, 2) == []
    assert [n for n in job.folder().committed if n in names] == names


@settings(max_examples=2 * settings.default.max_examples, deadline=None)
@given(
    own=st.lists(st.lists(st.integers(1, 30), unique=True, max_size=6), min_size=1, max_size=4),
    keep=st.integers(2, 5),
    damaged=st.sets(st.tuples(st.integers(1, 30), st.integers(1, 4)), max_size=6),
    picks=st.lists(st.integers(0, 20), min_size=4, max_size=4),
)
def test_what_stays_of_any_line_is_the_newest_and_as_many_whole_points_as_there_are(
    own: list[list[int]], keep: int, damaged: set[tuple[int, int]], picks: list[int]
) -> None:
    folder = described(own, picks)
    line = list(live_line(folder, head(folder)))
    bad = {PointName(*name) for name in damaged}
    gone = surplus(folder, keep, lambda name: name not in bad)
    stays = [name for name in line if name not in gone]
    assert line[: len(stays)] == stays, "a point went before an older one"
    assert len([name for name in stays if name not in bad]) == min(keep, len([n for n in line if n not in bad]))
    assert gone == sorted(gone, key=line.index, reverse=True)


def described(own: list[list[int]], picks: list[int]) -> Folder:
    """A folder in which each attempt continues from some point of those before it."""
    folder = Folder(Path("of nothing"))
    for number, iterations in enumerate(own, start=1):
        points = [PointName(i, attempt) for attempt, found in folder.iterations.items() for i in found]
        parent = points[picks[number - 1] % len(points)] if points else None
        folder.starts[number] = start(number, parent)
        folder.iterations[number] = [i for i in iterations if parent is None or i > parent.iteration]
        folder._committed.update({PointName(i, number): True for i in folder.iterations[number]})
    return folder


def start(number: int, parent: PointName | None) -> Start:
    return Start(
        attempt=number,
        nonce="",
        outcome="resume" if parent else "fresh",
        parent=parent,
        ancestry=(),
        requested=Request(),
        launch=JobOnDisk.launch(None),  # type: ignore[arg-type]
        versions={},
        config={},
        created="",
    )
