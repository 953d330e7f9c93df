"""A rank that hangs is found, told of and ended; one that does not is left alone. Real processes, without torch."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable

import pytest

from megatron_resume.checkpoint.failures import read_failures
from megatron_resume.checkpoint.lives import cause_of, lives
from megatron_resume.processes import descendants
from megatron_resume.watch import marks
from support.waiting import until
from support.watched_ranks import Ranks, until_it_has_run

SHORT = '{"hang": {"timeout": "1s"}}'


HANGS = {
    "sleeps_in_train": "train",
    "sleeps_in_setup": "setup",
    "sleeps_at_exit": "exit",
    "holds_the_lock": "setup",
    "is_stopped": "setup",
}


def test_a_rank_without_progress_is_ended_and_recorded(new_ranks: Callable[[], Ranks]) -> None:
    jobs = {how: new_ranks() for how in HANGS}  # side by side, each a job of one rank
    for how, ranks in jobs.items():
        ranks.start(how, policy=SHORT)
    for how, ranks in jobs.items():
        (rank,), phase = ranks.started, HANGS[how]
        assert rank.end() == -signal.SIGKILL, how
        assert f"no progress in {phase} for 1." in rank.said
        (life,) = lives(ranks.root)
        assert life.cause is not None
        assert (life.cause.how, life.cause.exit_code, life.cause.phase) == ("hang", 201, phase)
        (ending,) = ranks.endings
        assert (ending.exit_code, ending.rank, ending.fatal) == (201, 0, False)


@pytest.mark.parametrize(
    ("how", "frame"), [("sleeps_in_train", "in for_ever"), ("holds_the_lock", "in holds_the_lock")]
)
def test_the_stacks_of_its_threads_are_kept(ranks: Ranks, how: str, frame: str) -> None:
    (rank,) = ranks.start(how, policy=SHORT)
    rank.end()
    (stacks,) = ranks.root.glob("failures/*/stacks/rank_0.txt")
    text = stacks.read_text()
    assert frame in text
    assert "Current thread" in text
    assert "thread " in text.rpartition("Thread")[2], "what the kernel says of each"


def test_of_a_stopped_rank_it_is_said_that_it_was_stopped(ranks: Ranks) -> None:
    (rank,) = ranks.start("is_stopped", policy=SHORT)
    rank.end()
    assert "the process was stopped" in rank.said
    (stacks,) = ranks.root.glob("failures/*/stacks/rank_0.txt")
    assert ", stopped\n" in stacks.read_text()


def test_native_frames_are_kept_where_py_spy_is_installed(ranks: Ranks) -> None:
    tool = ranks.folder / "py-spy"
    tool.write_text('#!/bin/sh\necho "native frames: $*"\n')
    tool.chmod(0o755)
    (rank,) = ranks.start("sleeps_in_train", policy=SHORT, PATH=f"{ranks.folder}:{os.environ['PATH']}")
    rank.end()
    (stacks,) = ranks.root.glob("failures/*/stacks/rank_0.txt")
    assert f"native frames: dump --native --nonblocking --pid {rank.process.pid}" in stacks.read_text()


def test_the_rank_that_stood_still_first_is_named_first_and_all_stacks_are_kept(ranks: Ranks) -> None:
    both = ranks.start("sleeps_after_the_other", "sleeps_in_setup", policy=SHORT)
    assert [rank.end() for rank in both] == [-signal.SIGKILL] * 2
    (told,) = [line for line in both[1].said.splitlines() if "no progress" in line]
    assert re.match(r"[-0-9]{10} [:0-9]{8} megatron_resume: ERROR: hang, begun by rank 1 on ", told)
    assert len(list(ranks.root.glob("failures/*/stacks/rank_*.txt"))) == 2
    (folder,) = ranks.root.glob("failures/*")
    cause = cause_of(read_failures(folder))
    assert cause is not None
    assert cause.rank == 1


@pytest.mark.parametrize(("how", "state"), [("is_stopped_in_rollout", ", stopped"), ("sleeps_in_rollout", "")])
def test_a_culprit_whose_time_is_not_over_is_named_by_the_one_that_waits_for_it(
    ranks: Ranks, how: str, state: str
) -> None:
    policy = '{"hang": {"timeout": "1s", "rollout": "1h", "setup": "1h"}}'
    victim, culprit = ranks.start("sleeps_after_the_other", how, policy=policy)
    assert victim.end() == -signal.SIGKILL
    assert "hang, begun by rank 1 on " in victim.said
    assert f"in rollout at iteration 0{state}; rank 0 on " in victim.said
    assert culprit.process.poll() is None


@pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.call(["unshare", "--net", "true"]) != 0,
    reason="only root may make a network",
)
def test_ranks_on_other_nodes_learn_of_a_hang_by_the_folder_that_they_share(ranks: Ranks) -> None:
    policy = '{"hang": {"timeout": "1s", "rollout": "1h", "setup": "1h"}}'
    victim, culprit = ranks.start("sleeps_after_the_other", "sleeps_in_rollout", policy=policy, nodes=True)
    assert victim.end() == -signal.SIGKILL
    assert "hang, begun by rank 1 on " in victim.said
    assert len(list(ranks.root.glob("failures/*/stacks/rank_1.txt"))) == 1
    assert culprit.process.poll() is None


NO_HANGS = {
    "rolls_out": '"timeout": "1s", "rollout": "1h"',
    "saves": '"timeout": "1s", "checkpoint": "1h"',
    "idles": '"timeout": "1h", "train": "1s"',
    "comes_on": '"timeout": "1s"',
    "becomes_another_program": '"timeout": "1s"',
}


def test_a_rank_that_does_not_hang_is_left_alone(new_ranks: Callable[[], Ranks]) -> None:
    started = [new_ranks().start(how, policy=f'{{"hang": {{{limits}}}}}')[0] for how, limits in NO_HANGS.items()]
    for rank in started:
        rank.until("waits")
    (hung,) = new_ranks().start("sleeps_in_train", policy=SHORT)
    assert hung.end() == -signal.SIGKILL  # so that the others were silent for longer than it was
    assert [rank.go() for rank in started] == [0] * len(NO_HANGS)


JUMPS = """
import itertools, time
clock, jumps = time.time, itertools.cycle((0, -86_400, 86_400))
time.time = lambda: clock() + next(jumps)
"""


def test_a_clock_that_is_set_ends_nobody_and_hides_no_hang(new_ranks: Callable[[], Ranks]) -> None:
    jumping = new_ranks()
    (jumping.folder / "sitecustomize.py").write_text(JUMPS)
    (rank,) = jumping.start("comes_on", policy=SHORT, PYTHONPATH=str(jumping.folder))
    rank.until("waits")
    other = new_ranks()
    (hung,) = other.start("sleeps_in_train", policy=SHORT, PYTHONPATH=str(jumping.folder))
    assert hung.end() == -signal.SIGKILL
    assert "no progress in train for 1." in hung.said
    assert rank.go() == 0


def test_time_in_which_the_whole_machine_slept_is_no_silence(new_ranks: Callable[[], Ranks]) -> None:
    policy = '{"hang": {"timeout": "3s"}}'
    (rank,) = new_ranks().start("idles", policy=policy)
    rank.until("waits")
    asleep = [rank.process.pid, rank.until_watched()]
    for pid in asleep:
        os.kill(pid, signal.SIGSTOP)
    (hung,) = new_ranks().start("sleeps_in_train", policy=policy)
    assert hung.end() == -signal.SIGKILL
    for pid in asleep:
        os.kill(pid, signal.SIGCONT)
    until_it_has_run(asleep[1])
    assert rank.go() == 0


def test_with_a_debugger_nobody_watches(new_ranks: Callable[[], Ranks]) -> None:
    (rank,) = new_ranks().start("idles", policy=SHORT, MEGATRON_RESUME_NO_WATCH="1")
    rank.until("waits")
    assert descendants(rank.process.pid) == []
    assert rank.go() == 0


def test_without_a_launcher_nobody_watches() -> None:
    marks.begin({})
    assert marks._watchdog is None


def test_a_watchdog_goes_when_its_rank_does(ranks: Ranks) -> None:
    (rank,) = ranks.start("idles", policy=SHORT.replace("1s", "1h"))
    rank.until("waits")
    watchdog = rank.until_watched()
    assert rank.go() == 0
    until(lambda: not os.path.exists(f"/proc/{watchdog}"))
    assert list(lives(ranks.root)) == []
