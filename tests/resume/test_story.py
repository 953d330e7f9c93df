"""The story of a run, told from folders as jobs leave them."""

import os

import pytest

from megatron_resume.checkpoint.events import Committed
from megatron_resume.checkpoint.folder import read_folder
from megatron_resume.checkpoint.lives import lives
from megatron_resume.checkpoint.records import Request
from megatron_resume.checkpoint.times import Times, seconds, times
from megatron_resume.cli.life import cells, story_of, summary
from megatron_resume.resume.story import FIRST_COMMIT, FIRST_STEP, Chapter, Recovery, Story, story
from support.eventful_job import BEGIN, EventfulJob

NOW_S = BEGIN + 10_000


def told(job: EventfulJob) -> Story:
    folder = read_folder(job.root)
    found = list(lives(job.root))
    known = {one.attempt: times(job.root, one.attempt, folder.starts.get(one.attempt)) for one in found if one.attempt}
    return story(found, folder.starts, known, NOW_S)


def seconds_of(told: Story) -> dict[str, float]:
    return {kind: round(length_s) for kind, length_s in told.seconds.items() if length_s}


def kinds(chapter: Chapter) -> list[tuple[str, int]]:
    return [(stretch.kind, round(stretch.length_s)) for stretch in chapter.stretches]


def killed_once(job: EventfulJob) -> Story:
    """100 s of set-up, a point 300 s later, the death 200 s after that, 50 s of nothing, and a second attempt."""
    job.begins(0)
    job.trains(100)
    job.commits((410, 20), lag_s=10)
    job.is_killed(600, 27)
    job.begins(650, (20, 1))
    job.trains(730)
    job.commits((900, 40))
    job.finishes(950)
    return told(job)


def test_a_death_costs_what_was_trained_since_the_point_that_the_next_attempt_continued_from(
    eventful: EventfulJob,
) -> None:
    first = killed_once(eventful).chapters[0]
    assert (first.how, first.reached, first.kept) == ("killed", 27, 20)
    assert (first.lost_iterations, first.lost_s) == (7, 200), "the commit came 10 s after the save"
    assert kinds(first) == [("setup", 100), ("kept", 300), ("lost", 200)]


def test_recovering_takes_from_the_death_to_the_next_first_train_step(eventful: EventfulJob) -> None:
    assert killed_once(eventful).chapters[0].recovery == Recovery(130, FIRST_STEP, starts=1)


def test_each_second_is_told_once(eventful: EventfulJob) -> None:
    run = killed_once(eventful)
    assert seconds_of(run) == {"kept": 300 + 220, "lost": 200, "setup": 100 + 80, "down": 50}
    assert run.wall_s == 950
    assert (run.committed, run.reached, run.lost_iterations) == (40, 40, 7)


def test_without_a_recorded_step_recovering_takes_until_the_first_commit_and_says_so(eventful: EventfulJob) -> None:
    eventful.begins(0)
    eventful.commits((100, 10))
    eventful.is_killed(150, 12)
    eventful.begins(200, (10, 1))
    eventful.commits((400, 20))
    assert told(eventful).chapters[0].recovery == Recovery(250, FIRST_COMMIT, starts=1)


def test_a_watchdog_that_saw_the_first_step_tells_it_where_no_event_does(eventful: EventfulJob) -> None:
    eventful.begins(0)
    eventful.is_killed(500, 12, trained_s=420)
    assert told(eventful).chapters[0].trained_s == BEGIN + 80


def test_a_hang_is_silent_from_its_last_progress_until_it_was_found(eventful: EventfulJob) -> None:
    eventful.begins(0)
    eventful.trains(100)
    eventful.commits((200, 10))
    eventful.hangs(4_000, 13, silent_s=3_600)
    hung = told(eventful).chapters[0]
    assert hung.how == "hung"
    assert kinds(hung) == [("setup", 100), ("kept", 100), ("lost", 200), ("silent", 3_600)]
    assert (hung.lost_iterations, hung.lost_s, hung.recovery) == (3, 3_800, None)


def test_a_hang_before_the_first_step_is_silent_too(eventful: EventfulJob) -> None:
    eventful.begins(0)
    eventful.hangs(4_000, 0, silent_s=3_600)
    assert kinds(told(eventful).chapters[0]) == [("setup", 400), ("silent", 3_600)]


def test_a_preemption_loses_nothing(eventful: EventfulJob) -> None:
    eventful.begins(0)
    eventful.trains(100)
    eventful.commits((290, 15))
    eventful.is_preempted(300)
    eventful.begins(900, (15, 1))
    eventful.trains(1_000)
    run = told(eventful)
    assert (run.chapters[0].how, run.lost_iterations) == ("preempted", 0)
    assert run.chapters[0].recovery == Recovery(700, FIRST_STEP, starts=1)


def test_starts_that_never_trained_are_part_of_the_recovery(eventful: EventfulJob) -> None:
    eventful.begins(0)
    eventful.trains(100)
    eventful.is_killed(200, 5)
    eventful.begins(300)
    eventful.fails(350, 0)
    eventful.fails_before_its_attempt(400, "one")
    eventful.begins(500)
    eventful.trains(600)
    run = told(eventful)
    assert [(one.attempt, one.how) for one in run.chapters] == [
        (1, "killed"),
        (2, "failed"),
        (0, "failed"),
        (3, "killed"),
    ]
    assert [one.recovery for one in run.chapters] == [
        Recovery(400, FIRST_STEP, starts=3),
        Recovery(250, FIRST_STEP, starts=2),
        Recovery(200, FIRST_STEP, starts=1),
        None,
    ]


def test_what_a_later_attempt_did_not_continue_is_lost_to_the_end(eventful: EventfulJob) -> None:
    """Attempt 3 passes over the newest point of attempt 1, which attempt 2 had continued."""
    eventful.begins(0)
    eventful.trains(0)
    eventful.commits((100, 10), (200, 20))
    eventful.is_killed(250, 25)
    eventful.begins(300, (20, 1))
    eventful.trains(300)
    eventful.is_killed(400, 28)
    eventful.begins(500, (10, 1))
    eventful.trains(500)
    eventful.finishes(600)
    run = told(eventful)
    assert [one.lost_iterations for one in run.chapters] == [5, 18, 0]
    assert seconds_of(run) == {"kept": 100 + 100, "lost": 150 + 100, "down": 50 + 100}


def test_going_back_on_request_is_told_apart(eventful: EventfulJob) -> None:
    eventful.begins(0)
    eventful.commits((100, 10), (200, 20))
    eventful.finishes(250)
    eventful.begins(300, (10, 1), requested=Request(iteration=10))
    first, second = told(eventful).chapters
    assert (first.is_rolled_back, first.lost_iterations, second.is_rolled_back) == (True, 10, False)


def test_a_node_that_is_gone_was_there_until_its_lease_was_last_renewed(eventful: EventfulJob) -> None:
    eventful.begins(0)
    eventful.commits((100, 10))
    eventful.is_lost_with_its_node(renewals=30, iteration=14)
    lost = told(eventful).chapters[0]
    assert (lost.how, lost.ended_s, lost.is_end_recorded) == ("killed", BEGIN + 300, False)
    assert (lost.lost_iterations, lost.lost_s) == (4, 200)


def test_an_attempt_of_another_machine_may_still_run(eventful: EventfulJob) -> None:
    eventful.begins(0)
    eventful.commits((100, 10))
    eventful.is_lost_with_its_node(renewals=30, iteration=14)
    newest = story_of(eventful.folder()).chapters[0]
    assert (newest.how, newest.reached, newest.lost_iterations, newest.recovery) == ("unknown", 14, 0, None)
    assert kinds(newest) == [("kept", 300)]
    eventful.begins(900, (10, 1))
    eventful.trains(1_000)
    assert [one.how for one in story_of(eventful.folder()).chapters] == ["killed", "unknown"]


def test_the_time_of_a_lease_is_taken_where_it_fits_its_count(eventful: EventfulJob) -> None:
    eventful.begins(0)
    eventful.is_lost_with_its_node(renewals=600, iteration=14)
    lease = eventful.root / "attempts" / "0001" / "policy.lease"
    for written_s, seen_s in ((6_200, 6_200), (5_900, 6_000), (7_000, 6_000)):
        os.utime(lease, (BEGIN + written_s, BEGIN + written_s))
        assert told(eventful).chapters[0].ended_s == BEGIN + seen_s


YEARS_S = 10 * 365 * 86_400


@pytest.mark.parametrize(
    ("times_s", "is_timed"),
    [
        ((-YEARS_S, 10 - YEARS_S, 100, 200, 300), [False, True]),  # before the clock was set
        ((YEARS_S, YEARS_S + 10, 100, 200, 300), [False, False]),  # ahead
        ((5_000, 5_010, 100, 200, 300), [False, False]),  # back between them
        ((5_000, 100, 5_100, 5_200, 5_300), [False, True]),  # back in the first
        ((0, 10, 100, 200, YEARS_S), [True, False]),  # ahead in the second
        ((0, 160, 100, 200, 300), [True, True]),  # one that went on for a while when the second began
        ((30, 40, 0, 200, 300), [True, True]),  # two hosts
    ],
)
def test_where_clocks_were_set_no_length_is_told(
    eventful: EventfulJob, times_s: tuple[float, ...], is_timed: list[bool]
) -> None:
    began, killed, again, trained, finished = times_s
    eventful.begins(began)
    eventful.is_killed(killed, 5)
    eventful.begins(again)
    eventful.trains(trained)
    eventful.finishes(finished)
    found = told(eventful)
    assert [chapter.is_timed for chapter in found.chapters] == is_timed
    first = found.chapters[0]
    assert (first.recovery is not None) == all(is_timed)
    if not first.is_timed:
        assert (cells(first)[2], cells(first)[5:]) == ("?", ("5 (?)", "?"))
        assert summary(found)[-1].startswith("?: the clock of that attempt")
    assert found.wall_s < 10_000


def test_clocks_that_disagree_never_make_a_time_negative(eventful: EventfulJob) -> None:
    eventful.begins(1_000)
    eventful.trains(900)
    eventful.commits((800, 10))
    eventful.is_killed(1_500, 12)
    eventful.begins(1_200, (10, 1))
    eventful.trains(100)
    eventful.begins(700, (10, 1))
    run = told(eventful)
    assert all(stretch.length_s >= 0 for stretch in run.stretches)
    assert all(one.lost_s >= 0 for one in run.chapters)
    assert all(one.recovery is None or one.recovery.length_s >= 0 for one in run.chapters)


def test_damage_makes_the_story_shorter_and_not_fail(eventful: EventfulJob) -> None:
    killed_once(eventful)
    (eventful.root / "attempts" / "0001" / "start.json").write_text("{")
    eventful.events(2).write_text("nonsense\n")
    run = told(eventful)
    assert [(one.attempt, one.how) for one in run.chapters] == [(1, "killed"), (2, "killed")]
    assert run.chapters[0].began_s is None


def test_numbers_that_nobody_wrote_are_held(eventful: EventfulJob) -> None:
    eventful.begins(0)
    path = eventful.events(1)
    eventful.says(Committed(iteration=5, time="2026-01-01T00:01:00+00:00"))
    huge = path.read_text().replace('"iteration":5', f'"iteration":{"9" * 400}')
    path.write_text(
        huge + huge.replace("9" * 400, "7").replace("2026-01-01T00:01:00+00:00", "9999-12-31T23:59:59-23:59")
    )
    run = told(eventful)
    assert (run.reached, run.chapters[0].commits[0].time_s) == (7, None)


def test_a_forged_loop_of_parents_is_told_to_its_end(eventful: EventfulJob) -> None:
    eventful.begins(0, (10, 2))
    eventful.begins(100, (10, 1))
    assert [one.attempt for one in told(eventful).chapters] == [1, 2]


@pytest.mark.parametrize("text", ["", "soon", "0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59-23:59"])
def test_what_is_no_time_of_a_job_is_none(text: str) -> None:
    assert seconds(text) is None


def test_an_empty_folder_has_an_empty_story(eventful: EventfulJob) -> None:
    run = told(eventful)
    assert (run.chapters, run.wall_s, run.kept_share) == ((), 0, None)
    assert times(eventful.root, 1, None) == Times()
