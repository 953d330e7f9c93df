"""Which outcome a start has, on folders that the store itself wrote."""

import os
import shutil
from pathlib import Path

import pytest

from megatron_resume.checkpoint import leftovers
from megatron_resume.checkpoint.attempts import withdraw
from megatron_resume.checkpoint.commit import commit
from megatron_resume.checkpoint.folder import ResumePoint
from megatron_resume.checkpoint.layout import COMMITTED, START, PointName, attempt_path, parse_point, point_path
from megatron_resume.checkpoint.records import Request
from megatron_resume.errors import DamagedError
from megatron_resume.resume.choose import Fresh, Outcome, Refused, Resume, choose
from support.job_on_disk import JobOnDisk


def chosen(outcome: Outcome) -> PointName:
    assert isinstance(outcome, Resume), outcome
    return outcome.point.name


def reasons(outcome: Outcome) -> dict[PointName, str]:
    return {passed.point: passed.reason for passed in outcome.passed_over}


def test_an_empty_folder_starts_fresh(job: JobOnDisk) -> None:
    assert isinstance(job.choose(), Fresh)


def test_the_newest_committed_point_is_chosen(job: JobOnDisk) -> None:
    attempt = job.attempt()
    job.save(attempt, 2)
    newest = job.save(attempt, 10)
    outcome = job.choose()
    assert chosen(outcome) == newest
    assert not outcome.passed_over


@pytest.mark.parametrize(
    ("parts", "lacking"),
    [
        ((), "policy, value, the data"),
        (("policy",), "value, the data"),
        (("policy", "data"), "value"),
        (("policy", "value"), "the data"),
    ],
)
def test_a_point_that_lacks_a_part_is_passed_over_for_the_older_whole_one(
    job: JobOnDisk, parts: tuple[str, ...], lacking: str
) -> None:
    attempt = job.attempt()
    whole = job.save(attempt, 2)
    torn = job.save(attempt, 4, parts=parts)
    outcome = job.choose()
    assert chosen(outcome) == whole
    assert reasons(outcome) == {torn: f"it was never committed: {lacking} not recorded"}


def test_a_point_with_all_parts_but_no_commit_is_passed_over(job: JobOnDisk) -> None:
    attempt = job.attempt()
    whole = job.save(attempt, 2)
    uncommitted = job.save(attempt, 4, parts=("policy", "value", "data"))
    outcome = job.choose()
    assert chosen(outcome) == whole
    assert "never committed" in reasons(outcome)[uncommitted]


def test_however_many_points_there_are_only_those_that_are_tried_are_looked_at(
    job: JobOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = job.attempt()
    for iteration in range(1, 9):
        newest = job.save(attempt, iteration)
    looked_at, lstat = set(), os.lstat

    def noting(path: Path) -> os.stat_result:
        looked_at.update([Path(path).parent] if Path(path).name == COMMITTED else [])
        return lstat(path)

    monkeypatch.setattr(os, "lstat", noting)
    assert chosen(job.choose()) == newest
    assert looked_at == {point_path(job.root, newest)}


def test_a_point_that_is_committed_while_it_is_tried_does_not_pass_for_a_damaged_one(job: JobOnDisk) -> None:
    attempt = job.attempt(requested=Request(fresh=True))
    name = job.save(attempt, 2, parts=(*job.roles, "data"))

    def too_early(tried: PointName) -> ResumePoint:
        commit(point_path(job.root, tried), tried, nonce="nonce of 1", roles=job.roles)
        raise DamagedError("it was never committed")

    outcome = choose(job.folder(), Request(), job.launch("a new job"), too_early)
    assert isinstance(outcome, Fresh), outcome
    assert chosen(job.choose()) == name


@pytest.mark.parametrize(
    "alias", ["iter_00000002.a0001", "iter_0000002.a00001", "iter_000000\N{FULLWIDTH DIGIT TWO}.a0001", "iter_2.a1"]
)
def test_a_point_has_one_name(alias: str) -> None:
    assert parse_point("iter_0000002.a0001") == PointName(2, 1)
    assert parse_point("iter_10000002.a10001") == PointName(10_000_002, 10_001)
    assert parse_point(alias) is None


def test_without_any_commit_the_start_is_fresh_and_says_what_it_passed_over(job: JobOnDisk) -> None:
    torn = job.save(job.attempt(), 2, parts=("policy",))
    outcome = job.choose()
    assert isinstance(outcome, Fresh)
    assert list(reasons(outcome)) == [torn]


def test_an_attempt_continues_the_line_of_its_parent(job: JobOnDisk) -> None:
    first = job.save(job.attempt(), 4)
    assert chosen(job.choose()) == first
    second = job.attempt(first)
    assert chosen(job.choose()) == first, "the newest attempt has not committed yet"
    newest = job.save(second, 6)
    assert chosen(job.choose()) == newest


def test_points_that_were_rolled_back_are_never_chosen_by_themselves(job: JobOnDisk) -> None:
    first = job.attempt()
    back = job.save(first, 2)
    job.save(first, 8)  # newer, and whole
    second = job.attempt(back, requested=Request(iteration=2))
    assert chosen(job.choose()) == back
    newest = job.save(second, 4)
    assert chosen(job.choose()) == newest


def test_a_late_commit_of_a_dead_attempt_is_not_on_the_line(job: JobOnDisk) -> None:
    first = job.attempt()
    parent = job.save(first, 2)
    second = job.attempt(parent)
    job.save(first, 4)  # the dead attempt's writer wakes up
    newest = job.save(second, 3)
    assert chosen(job.choose()) == newest


def test_rolling_back_takes_the_asked_iteration(job: JobOnDisk) -> None:
    attempt = job.attempt()
    wanted = job.save(attempt, 2)
    job.save(attempt, 4)
    assert chosen(job.choose(Request(iteration=2))) == wanted


def test_rolling_back_to_what_was_not_saved_names_what_was(job: JobOnDisk) -> None:
    attempt = job.attempt()
    job.save(attempt, 2)
    job.save(attempt, 4)
    outcome = job.choose(Request(iteration=3))
    assert isinstance(outcome, Refused)
    assert "iterations saved there: 2, 4" in outcome.reason
    assert not outcome.damaged


def test_a_roll_back_is_honoured_once_per_launch(job: JobOnDisk) -> None:
    first = job.attempt(job="earlier")
    back = job.save(first, 2)
    job.save(first, 4)
    second = job.attempt(back, requested=Request(iteration=2), job="launch A")
    newest = job.save(second, 3)
    again = Request(iteration=2)
    assert chosen(job.choose(again, job="launch A")) == newest, "the launcher restarted the same launch"
    assert chosen(job.choose(again, job="launch B")) == back, "a person asked again"


def test_switched_off_the_start_is_fresh_and_counts_what_stays(job: JobOnDisk) -> None:
    job.save(job.attempt(), 2)
    outcome = job.choose(Request(fresh=True))
    assert isinstance(outcome, Fresh)
    assert outcome.requested
    assert "1 committed points stay" in outcome.reason


def test_a_fresh_start_on_purpose_begins_a_line_of_its_own(job: JobOnDisk) -> None:
    job.save(job.attempt(), 20)
    second = job.attempt(requested=Request(fresh=True))
    own = job.save(second, 2, parts=())
    assert isinstance(job.choose(job="job"), Fresh), "the launcher restarted the launch that began anew"
    outcome = job.choose()
    assert isinstance(outcome, Refused)
    assert "began anew on purpose" in outcome.reason
    assert list(reasons(outcome)) == [own]


def test_starting_over_is_honoured_once(job: JobOnDisk) -> None:
    job.save(job.attempt(), 20)
    over = Request(start_over=True)
    outcome = job.choose(over)
    assert isinstance(outcome, Fresh)
    assert outcome.start_over
    own = job.save(job.attempt(requested=over, job="launch A"), 2)
    assert chosen(job.choose(over, job="launch A")) == own, "the launcher restarted the same launch"
    assert isinstance(job.choose(over, job="launch B"), Fresh), "a person asked again"


def test_the_line_of_an_abandoned_attempt_is_continued_when_it_is_named(job: JobOnDisk) -> None:
    first = job.attempt()
    back = job.save(first, 2)
    abandoned = job.save(first, 8)
    newest = job.save(job.attempt(back, requested=Request(iteration=2)), 4)
    assert chosen(job.choose()) == newest
    assert chosen(job.choose(Request(attempt=1))) == abandoned
    assert chosen(job.choose(Request(attempt=1, iteration=2))) == back
    assert chosen(job.choose(Request(attempt=2))) == newest
    refused = job.choose(Request(attempt=9))
    assert isinstance(refused, Refused)
    assert "attempts: 1, 2" in refused.reason


def test_a_fresh_start_that_nobody_asked_for_and_that_died_early_is_skipped(job: JobOnDisk) -> None:
    newest = job.save(job.attempt(), 20)
    job.save(job.attempt(), 22, parts=("policy",))
    assert chosen(job.choose()) == newest


def test_with_every_committed_point_damaged_the_start_is_refused(job: JobOnDisk) -> None:
    attempt = job.attempt()
    for iteration in (2, 4):
        job.save(attempt, iteration)
        shutil.rmtree(job.model("value", iteration))
    outcome = job.choose()
    assert isinstance(outcome, Refused)
    assert outcome.damaged
    assert len(outcome.passed_over) == 2
    assert "--start-over" in outcome.reason


def test_a_damaged_start_file_never_leads_to_a_fresh_start(job: JobOnDisk) -> None:
    newest = job.save(job.attempt(), 4)
    (attempt_path(job.root, 1) / START).write_bytes(b"{torn")
    assert chosen(job.choose()) == newest
    shutil.rmtree(point_path(job.root, newest))
    assert isinstance(job.choose(), Refused)


def test_a_forged_loop_of_parents_ends(job: JobOnDisk) -> None:
    job.attempt(PointName(4, 2))
    job.attempt(PointName(4, 1))
    job.save(1, 4)
    assert chosen(job.choose()) == PointName(4, 1)


def test_a_process_for_policy_alone_can_use_a_point_of_both(job: JobOnDisk) -> None:
    name = job.save(job.attempt(), 2)
    job.roles = ("policy",)
    assert chosen(job.choose()) == name


def test_roles_that_grew_since_the_point_are_a_mismatch_that_costs_no_work(tmp_path: Path) -> None:
    job = JobOnDisk(tmp_path)
    attempt = job.attempt()
    of_both = job.save(attempt, 2)
    job.roles = ("policy",)
    job.save(attempt, 4)
    assert chosen(job.choose()) == PointName(4, 1)
    job.roles = ("policy", "value")
    outcome = job.choose()
    assert isinstance(outcome, Refused)
    assert not outcome.damaged
    assert "iteration 4 of attempt 1 holds policy, and --trained-roles names value too" in outcome.reason
    assert "continue with --trained-roles policy" in outcome.reason
    assert chosen(job.choose(Request(iteration=2))) == of_both


def delete_points(job: JobOnDisk) -> None:
    for name in job.folder().points:
        shutil.rmtree(point_path(job.root, name))


def test_with_every_point_deleted_that_an_attempt_continued_from_the_start_is_refused(job: JobOnDisk) -> None:
    point = job.save(job.attempt(), 2)
    job.attempt(point)
    job.attempt()  # began fresh unasked and never committed: it does not count
    delete_points(job)
    outcome = job.choose()
    assert isinstance(outcome, Refused)
    assert outcome.damaged
    assert (
        f"attempt 2 continued from {point}, but {job.root} holds no committed point. Restore its points"
        in outcome.reason
    )
    assert "--start-over" in outcome.reason
    assert reasons(outcome) == {point: f"{point_path(job.root, point)} is gone"}
    assert isinstance(job.choose(Request(start_over=True)), Fresh)


def test_a_deleted_parent_is_named_when_an_older_point_is_taken(job: JobOnDisk) -> None:
    attempt = job.attempt()
    older, parent = job.save(attempt, 2), job.save(attempt, 4)
    job.attempt(parent)
    shutil.rmtree(point_path(job.root, parent))
    outcome = job.choose()
    assert chosen(outcome) == older
    assert "is gone" in reasons(outcome)[parent]


def test_attempts_that_never_committed_leave_the_start_fresh(job: JobOnDisk) -> None:
    job.save(job.attempt(), 2, parts=("policy",))
    job.attempt()
    delete_points(job)
    assert isinstance(job.choose(), Fresh)


def test_points_that_a_start_over_moved_aside_are_not_taken_for_deleted(job: JobOnDisk) -> None:
    point = job.save(job.attempt(), 2)
    job.attempt(point)
    over = job.attempt(requested=Request(start_over=True))
    leftovers.move_points_away(job.root, attempt=over)
    assert isinstance(job.choose(), Fresh)
    withdraw(job.root, over)  # as a start does that is refused once it has begun
    outcome = job.choose()
    assert isinstance(outcome, Refused)
    assert "a start over moved it to" in reasons(outcome)[point]
    assert isinstance(job.choose(Request(start_over=True)), Fresh)


HOW = "loading it failed in attempt 2 with RuntimeError: torn"


def choose_after_failed_loads(job: JobOnDisk, *points: PointName) -> Outcome:
    return choose(job.folder(), Request(), job.launch(), job.point, dict.fromkeys(points, HOW))


def test_a_point_that_could_not_be_loaded_is_passed_over_aloud(job: JobOnDisk) -> None:
    attempt = job.attempt()
    older, newest = job.save(attempt, 2), job.save(attempt, 4)
    outcome = choose_after_failed_loads(job, newest)
    assert chosen(outcome) == older
    back = "--load-data-checkpoint-iteration 4 --load-data-checkpoint-attempt 1"
    assert reasons(outcome) == {newest: f"{HOW}; this start does without it, once (back to it: {back})"}


def test_where_nothing_older_is_whole_it_is_tried_again(job: JobOnDisk) -> None:
    attempt = job.attempt()
    job.save(attempt, 2, parts=("policy",))
    newest = job.save(attempt, 4)
    outcome = choose_after_failed_loads(job, newest)
    assert chosen(outcome) == newest
    assert not outcome.passed_over


def test_where_the_older_one_could_not_be_loaded_either_nobody_goes_further_back(job: JobOnDisk) -> None:
    attempt = job.attempt()
    job.save(attempt, 2)
    older, newest = job.save(attempt, 4), job.save(attempt, 6)
    job.attempt(older)
    assert chosen(choose_after_failed_loads(job, newest, older)) == older


def test_a_failed_load_of_another_point_than_the_newest_is_of_no_account(job: JobOnDisk) -> None:
    attempt = job.attempt()
    older, newest = job.save(attempt, 2), job.save(attempt, 4)
    assert chosen(choose_after_failed_loads(job, older)) == newest


def test_a_request_is_honoured_although_loading_failed(job: JobOnDisk) -> None:
    attempt = job.attempt()
    job.save(attempt, 2)
    newest = job.save(attempt, 4)
    outcome = choose(job.folder(), Request(iteration=4), job.launch("new"), job.point, {newest: HOW})
    assert chosen(outcome) == newest


def test_an_older_point_without_a_role_of_this_job_is_no_way_out(job: JobOnDisk) -> None:
    older = JobOnDisk(job.base, ("policy",))
    older.save(older.attempt(), 2)
    newest = job.save(1, 4)
    assert chosen(choose_after_failed_loads(job, newest)) == newest
