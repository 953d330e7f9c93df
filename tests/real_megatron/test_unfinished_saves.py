"""Loops that leave the end of asynchronous saves to nobody: our hooks finish them, or the process says so."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from support.minimal import IN_MID_EPISODE, check_exact, from_server
from support.pretraining import MCORE_ASYNC
from support.runs import ASYNC, ITERATIONS_PER_EPISODE, Run, Server, assert_identical

COMMITTED = [ITERATIONS_PER_EPISODE, 2 * ITERATIONS_PER_EPISODE, 3 * ITERATIONS_PER_EPISODE]


def committed(run: Run) -> list[int]:
    return [point["iteration"] for point in run.status()["points"] if point["state"] in ("committed", "resumable")]


@pytest.mark.parametrize(
    "how",
    [
        "finalizing.is_left_to_nobody",
        pytest.param("finalizing.is_asked_for_once_after_each_save", marks=pytest.mark.slow),
    ],
)
def test_every_save_is_committed_though_the_loop_never_asks(
    new_run: Callable[..., Run], undisturbed: Callable[[str], Run], how: str
) -> None:
    run = new_run("dp2", *ASYNC)
    ended = run.tampered(how)
    assert ended.code == 0, ended.log[-4000:]
    assert "will never be committed" not in ended.log
    assert sorted(committed(run)) == COMMITTED
    assert_identical(run, undisturbed("dp2"))


@pytest.mark.slow
def test_the_loop_of_the_readme_resumes_exactly_from_asynchronous_saves(server: Server, tmp_path: Path) -> None:
    undisturbed = from_server(server, tmp_path / "undisturbed", "", *MCORE_ASYNC)
    killed = from_server(server, tmp_path / "killed", IN_MID_EPISODE, *MCORE_ASYNC)
    check_exact(undisturbed, killed, from_server(server, tmp_path / "killed", "", *MCORE_ASYNC))


def test_saves_that_megatron_never_finishes_are_named_in_the_last_line_and_the_job_fails(
    new_run: Callable[..., Run],
) -> None:
    run = new_run("dp2", *ASYNC)
    ended = run.tampered("finalizing.finishes_nothing")
    assert ended.codes[0] == 78, ended.log[-4000:]
    assert ended.codes[1] in (0, -signal.SIGTERM), "a launcher ends it with rank 0, if it is still there"
    last = [line for line in ended.log.splitlines() if "megatron_resume" in line][-1]
    assert "policy of iteration 6, value of iteration 6 will never be committed" in last
    assert "ERROR" in last
    status = run.status()
    assert status["point"] is None
    assert status["attempts"][-1]["processes"][0]["says"].startswith("failed with exit code 78: UncommittedError")


@pytest.mark.slow
def test_saves_that_megatron_never_finishes_count_as_uncommitted(new_run: Callable[..., Run]) -> None:
    ended = new_run("dp2", *ASYNC, "--max-uncommitted-saves", "2").tampered("finalizing.finishes_nothing")
    assert 78 in ended.codes, ended.log[-4000:]
    assert (
        "the last saves of policy came to no resume point (2 in a row, from iteration 2 on; the limit is 2)"
        in ended.log
    )


@pytest.mark.slow
def test_where_the_storage_is_slower_than_the_steps_a_save_waits_and_the_job_goes_on(
    new_run: Callable[..., Run],
) -> None:
    run = new_run("dp2", *ASYNC, "--max-uncommitted-saves", "1")
    ended = run.tampered("finalizing.finishes_only_when_waited_for")
    assert ended.code == 0, ended.log[-4000:]
    assert sorted(committed(run)) == COMMITTED


@pytest.mark.slow
def test_a_script_that_fails_keeps_its_own_exit_code(new_run: Callable[..., Run]) -> None:
    ended = new_run("dp2", *ASYNC).tampered("finalizing.finishes_nothing_and_fails")
    assert ended.code == 7, ended.log[-4000:]
    assert "was never finished" in ended.log
