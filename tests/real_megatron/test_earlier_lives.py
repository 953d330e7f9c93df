"""What the lives before mean for the next start, on real Megatron: budgets, loads that failed, lines of progress."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from support.runs import ALONE, Ended, Run, assert_identical

POLICY = "MEGATRON_RESUME_POLICY"


def spoil(file: Path) -> None:
    """Other bytes under the same size and time, in place: what a start does not look at."""
    before = file.stat()
    with file.open("r+b") as opened:
        opened.write(bytes(min(before.st_size, 4096)))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_point_that_megatron_cannot_load_is_passed_over_once_and_said_aloud(
    new_run: Callable[..., Run], undisturbed: Callable[[str], Run]
) -> None:
    run = new_run(ALONE)
    run.killed("commit.end:2")
    assert run.status()["point"] == {"iteration": 4, "attempt": 1}
    spoil(run.output / "checkpoints" / "policy" / "iter_0000004" / ".metadata")
    failed = run.start()
    assert failed.code == 1, failed.log[-4000:]
    passed = run.finish()
    said = passed.line("iteration 4 of attempt 1 was passed over")
    assert "loading it failed in attempt 2 with " in said
    assert "this start does without it, once" in said
    assert "attempt 3 resumes from iteration 2 of attempt 1" in passed.log
    assert_identical(run, undisturbed(ALONE))


def test_where_the_older_point_cannot_be_loaded_either_the_budget_ends_it(new_run: Callable[..., Run]) -> None:
    run = new_run(ALONE)
    run.killed("commit.end:2")
    for iteration in (2, 4):
        spoil(run.output / "checkpoints" / "policy" / f"iter_000000{iteration}" / ".metadata")
    env: dict[str, str | None] = {POLICY: '{"max_restarts": 3}'}
    assert [run.start(env=env).code for _ in range(3)] == [1, 1, 1]
    over = run.start(env=env)
    assert over.refused_with == 70, over.log[-4000:]
    assert "given up: 4 lives ended without a refill between them" in over.log or "no_progress_limit" in over.log


def lines(ended: Ended) -> list[str]:
    return re.findall(r"megatron_resume:? ?\S*(iteration \d+, episode \d+)$", ended.log, flags=re.MULTILINE)


@pytest.mark.parametrize(
    "env", [{POLICY: "{}"}, {"MEGATRON_RESUME_PROGRESS_LINES": "1"}], ids=["under a policy", "asked for"]
)
def test_each_train_step_is_a_line_under_a_policy_or_where_asked_for(
    new_run: Callable[..., Run], env: dict[str, str]
) -> None:
    ended = new_run(ALONE).start(tamper="train_steps.steps_take_longer_than_lines_are_apart", env=env, episodes=2)
    assert ended.code == 0, ended.log[-4000:]
    assert {"iteration 1, episode 0", "iteration 2, episode 0", "iteration 3, episode 1"} <= set(lines(ended))


@pytest.mark.parametrize("env", [{}, {POLICY: "{}", "MEGATRON_RESUME_PROGRESS_LINES": "0"}], ids=["else", "refused"])
def test_nobody_else_gets_a_line(new_run: Callable[..., Run], env: dict[str, str]) -> None:
    ended = new_run(ALONE).start(tamper="train_steps.steps_take_longer_than_lines_are_apart", env=env, episodes=2)
    assert (ended.code, lines(ended)) == (0, []), ended.log[-4000:]


def test_no_line_is_written_once_a_rank_is_found_stuck(new_run: Callable[..., Run]) -> None:
    run = new_run(ALONE)
    env: dict[str, str | None] = {POLICY: "{}", "STUCK": str(run.data_checkpoint)}
    ended = run.start(tamper="train_steps.steps_take_longer_than_lines_are_apart", env=env, episodes=2)
    assert ended.code == 0, ended.log[-4000:]
    assert set(lines(ended)) == {"iteration 1, episode 0"}, ended.log[-4000:]
