"""How real runs end is what `status` says of them."""

import re
import socket
from collections.abc import Callable

from megatron_resume.checkpoint.events import Committed, Trained, events_path, read_events
from support.runs import ALONE, Run, assert_identical


def ends(run: Run) -> list[tuple[int | None, str]]:
    """Of each attempt its last commit and how its one process ended."""
    found = []
    for attempt in run.status()["attempts"]:
        (process,) = attempt["processes"]
        assert process["damage"] is None
        found.append((attempt["last_commit"], process["says"]))
    return found


def committed(run: Run, attempt: int) -> list[int]:
    told = read_events(events_path(run.data_checkpoint, attempt, "policy"))
    return [event.iteration for event in told.events if isinstance(event, Committed)]


def first_steps(run: Run, attempt: int) -> int:
    told = read_events(events_path(run.data_checkpoint, attempt, "policy"))
    return sum(isinstance(event, Trained) for event in told.events)


def test_a_run_that_fails_is_killed_and_finishes_says_so(
    new_run: Callable[..., Run], undisturbed: Callable[[str], Run]
) -> None:
    run = new_run(ALONE)
    ended = run.tampered("failures.fails_in_the_second_episode")
    assert ended.code == 1
    assert "RuntimeError: the network is down" in ended.log
    run.killed("event.end@committed")  # of iteration 4
    run.finish()
    failed, killed, finished = ends(run)
    assert failed == (2, "failed with exit code 1: RuntimeError: the network is down")
    last_commit, said = killed
    assert last_commit == 4
    # By the writer's thread, while the training goes on.
    phase = "(rollout|train|idle)"
    assert re.fullmatch(f"killed: rank 0 on {socket.gethostname()} ended in {phase} by SIGKILL", said), said
    assert finished == (6, "finished")
    assert [committed(run, attempt) for attempt in (1, 2, 3)] == [[2], [4], [6]]
    assert [first_steps(run, attempt) for attempt in (1, 2, 3)] == [1, 1, 1]
    assert_identical(run, undisturbed(ALONE))


def test_an_error_of_ours_is_recorded_with_its_exit_code(copy_of_interrupted: Run) -> None:
    run = copy_of_interrupted
    ended = run.tampered("restored_state.schedule_replayed")
    assert ended.refused_with == 65
    last, says = ends(run)[-1]
    assert last is None
    assert says.startswith("failed with exit code 65: DamagedError: policy was saved with {")


def test_events_that_cannot_be_written_are_a_warning_and_change_nothing(
    new_run: Callable[..., Run], undisturbed: Callable[[str], Run]
) -> None:
    run = new_run(ALONE)
    ended = run.tampered("storage.events_cannot_be_written")
    assert ended.code == 0, ended.log[-4000:]
    assert (
        ended.log.count("policy.events.jsonl cannot be written: it is no plain file") == 5
    )  # 1 first step, 3 commits, 1 end
    assert run.status()["point"] == {"iteration": 6, "attempt": 1}
    assert_identical(run, undisturbed(ALONE))
