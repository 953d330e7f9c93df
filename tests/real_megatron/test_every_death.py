"""Killed at every step of a save, a commit and a start, the run goes on and ends identical to the bit."""

from collections.abc import Callable

import pytest

from megatron_resume.crash import POINTS
from support.runs import ASYNC, ITERATIONS_PER_EPISODE, SYNC, Run, Server, assert_identical, newest_committed

WRITE = ("write.begin", "write.written", "write.synced", "write.named", "write.end")
MOVE = ("move.begin", "move.renamed", "move.end")
EVENT = ("event.begin", "event.torn", "event.end")
ROLES = ("policy", "value")
LAST_ITERATION = 6

# In the second of three saves, so that there is a point to go back to and one to come.
WHILE_SAVING = [
    *(f"{point}@{role}:2" for role in ROLES for point in ("save.begin", "save.end", "model.synced")),
    *(f"{step}@{role}.json:2" for role in ROLES for step in WRITE),
    *(f"{step}@{file}:2" for file in ("data.safetensors", "data.json", "COMMITTED") for step in WRITE),
    "commit.end:2",
    *(f"{step}@committed:2" for step in EVENT),
    *(f"{step}@finished" for step in EVENT),
    *(f"train_step@{role}:{ITERATIONS_PER_EPISODE + 1}" for role in ROLES),
]
# In a start that follows a death between the saves of policy and value, so that there is something to clear away.
WHILE_STARTING = [
    "attempt.numbered",
    "attempt.held",
    "attempt.begun",
    "start.end",
    *(f"{point}@{role}" for role in ROLES for point in ("name.taken", "name.made")),
    *(f"{step}@start.json" for step in WRITE),
    *(f"{step}@{role}.lease" for role in ROLES for step in WRITE),
    *(f"{step}@iter_0000004" for step in MOVE),
    *(f"{step}@latest_checkpointed_iteration.txt" for step in WRITE),
]
# After the commit of the third save, of which --max-data-ckpt-nums 2 keeps two; there is a fourth.
KEEP_TWO = ("--max-data-ckpt-nums", "2", "--resume-prune-models")
WHILE_PRUNING = [
    *(f"{step}@iter_0000002.a0001" for step in MOVE),
    "prune.hidden",
    *(f"{step}@iter_0000002" for step in MOVE),
    *(f"prune.model@{role}" for role in ROLES),
    "prune.end",
]
SAVES = {"sync": SYNC, "async": ASYNC}
SPREAD = {
    *(("save.begin@value:2", "sync"), ("write.synced@value.json:2", "async")),
    *(("write.named@COMMITTED:2", "sync"), ("event.torn@committed:2", "async")),
}
SPREAD_OF_PRUNING = ["prune.model@policy"]
SPREAD_OF_STARTS = ["attempt.begun", "move.renamed@iter_0000004", "write.written@latest_checkpointed_iteration.txt"]


def slow_unless(chosen: list[str], points: list[str]) -> list[object]:
    return [point if point in chosen else pytest.param(point, marks=pytest.mark.slow) for point in points]


def check_lost_work(run: Run, *, ran: int, committed: int, by_writer: bool) -> None:
    """A death costs what ran since the newest commit: a save interval, and what ran while a save was under way."""
    ran_again = len(lines(run)) - LAST_ITERATION
    assert ran_again == ran - committed
    if by_writer:  # which was at the second save, so done with the first
        assert committed >= ITERATIONS_PER_EPISODE


def lines(run: Run) -> list[str]:
    return (run.output / "trace.jsonl").read_text().splitlines()


@pytest.mark.parametrize(
    ("point", "save"),
    [
        pytest.param(point, save, id=f"{point}-{save}", marks=[] if (point, save) in SPREAD else pytest.mark.slow)
        for point in WHILE_SAVING
        for save in SAVES
    ],
)
def test_killed_while_saving(
    new_run: Callable[..., Run], undisturbed: Callable[[str], Run], point: str, save: str
) -> None:
    run = new_run("dp2", *SAVES[save])
    run.killed(point)
    ran, committed = len(lines(run)), newest_committed(run.data_checkpoint)
    run.finish()
    assert_identical(run, undisturbed("dp2"))
    by_writer = point.startswith(("model.", "write.", "commit.", "event."))
    check_lost_work(run, ran=ran, committed=committed, by_writer=by_writer)


@pytest.mark.parametrize("point", slow_unless(SPREAD_OF_STARTS, WHILE_STARTING))
def test_killed_while_starting(copy_of_interrupted_pair: Run, undisturbed: Callable[[str], Run], point: str) -> None:
    run = copy_of_interrupted_pair
    run.killed(point)
    run.finish()
    assert_identical(run, undisturbed("dp2"))


@pytest.fixture(scope="module")
def four_episodes(server: Server, undisturbed: Callable[[str], Run], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of four episodes that keeps every point."""
    run = Run(server, tmp_path_factory.mktemp("four_episodes") / "run", frozen_models(undisturbed))
    run.finish(episodes=4)
    return run


def frozen_models(undisturbed: Callable[[str], Run]) -> tuple[str, ...]:
    frozen = undisturbed("dp2").output / "checkpoints"
    return ("--reference-load", str(frozen / "reference"), "--reward-load", str(frozen / "reward"))


@pytest.mark.parametrize("point", slow_unless(SPREAD_OF_PRUNING, WHILE_PRUNING))
def test_killed_while_pruning(new_run: Callable[..., Run], four_episodes: Run, point: str) -> None:
    run = new_run("dp2", *KEEP_TWO)
    run.killed(point, episodes=4)
    run.finish(episodes=4)
    assert_identical(run, four_episodes)
    points = [(point["iteration"], point["state"]) for point in run.status()["points"]]
    # The writer prunes while training goes on: the death may have cut off the save of the fourth episode.
    assert [point for point in points if point != (8, "never committed")] == [(8, "resumable"), (6, "committed")]
    left = {path.name for role in ROLES for path in (run.output / "checkpoints" / role).rglob("iter_*")}
    assert left == {"iter_0000006", "iter_0000008"}
    assert not list(run.data_checkpoint.glob("pruned/*"))


@pytest.mark.parametrize("step", slow_unless(["event.torn"], list(EVENT)))
def test_killed_while_recording_that_it_failed(
    new_run: Callable[..., Run], undisturbed: Callable[[str], Run], step: str
) -> None:
    run = new_run()
    ended = run.tampered("failures.fails_in_the_second_episode", crash=f"{step}@failed")
    assert -9 in ended.codes, ended.log[-6000:]
    run.finish()
    assert_identical(run, undisturbed("dp2"))


def test_every_crash_point_is_in_the_matrix() -> None:
    named = {place.partition(":")[0].partition("@")[0] for place in (*WHILE_SAVING, *WHILE_STARTING, *WHILE_PRUNING)}
    # Where a process of its own owns the data, and after a load failed: test_chatlearn_engine.py, test_failed_loads.py
    elsewhere = {"data.end", "lineage.claimed"}
    assert named | elsewhere == set(POINTS)
