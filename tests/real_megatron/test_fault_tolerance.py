"""Whatever ends or stops a rank, the run under `launch` comes to its end by itself, and nothing differs."""

import functools
import json
import signal
import socket
from collections.abc import Callable, Iterator

import pytest

from support.launched import WATCHFUL, Launched
from support.runs import Run, assert_identical
from support.waiting import until

Launch = Callable[..., Launched]


@pytest.fixture
def launch() -> Iterator[Launch]:
    made: list[Launched] = []

    def start(run: Run, *flags: str, **options: object) -> Launched:
        made.append(Launched(run, *flags, **options))  # type: ignore[arg-type]
        return made[-1]

    yield start
    for one in made:
        one.close()


def attempts(run: Run) -> list[int]:
    """That trained."""
    lines = (run.output / "trace.jsonl").read_text().splitlines()
    return sorted({json.loads(line)["attempt"] for line in lines})


def causes(run: Run) -> str:
    """What the next lives were told."""
    return "".join(path.read_text() for path in sorted(run.data_checkpoint.glob("**/failures/**/rank_*.json")))


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("kill,stop", ['"signal": "SIGKILL"', "the process was stopped"]),
        pytest.param("all", ['"signal": "SIGKILL"'], marks=pytest.mark.slow),
        pytest.param("agent", ['"signal": "SIGKILL"'], marks=pytest.mark.slow),
        pytest.param("error", ['"exit_code": 1'], marks=pytest.mark.slow),
        pytest.param("sleep", ["no progress in idle"], marks=pytest.mark.slow),
        pytest.param("lock", ["no progress in idle"], marks=pytest.mark.slow),
    ],
)
def test_the_run_ends_as_if_nothing_had_happened(
    undisturbed: Callable[[str], Run], new_run: Callable[..., Run], launch: Launch, how: str, told: list[str]
) -> None:
    run = new_run()
    launched = launch(run, hang=how, times=len(told), forked="," in how)
    launched.finish()
    assert launched.hung.stat().st_size == len(told)
    assert attempts(run) == list(range(1, len(told) + 2)), "each restart reached its first step"
    assert [one for one in told if one not in causes(run)] == [], causes(run)
    assert_identical(run, undisturbed("dp2"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "phase", "policy"),
    [
        ("start", "setup", "hang: {timeout: 15s, setup: 1m, exit: 1m}"),
        ("exit", "exit", WATCHFUL.replace("exit: 1m", "exit: 30s")),
    ],
)
def test_a_hang_before_or_after_the_training_costs_no_work(
    undisturbed: Callable[[str], Run],
    new_run: Callable[..., Run],
    launch: Launch,
    how: str,
    phase: str,
    policy: str,
) -> None:
    run = new_run()
    launched = launch(run, hang=how, policy=policy)
    launched.finish()
    assert launched.hung.exists()
    assert f"rank 1 on {socket.gethostname()}: no progress in {phase}" in launched.said
    assert attempts(run) == [1]
    assert_identical(run, undisturbed("dp2"))


@pytest.mark.slow
def test_when_launch_itself_is_killed_nobody_lives_on_and_the_same_command_resumes(
    undisturbed: Callable[[str], Run], new_run: Callable[..., Run], launch: Launch
) -> None:
    run = new_run()
    first = launch(run, "--nnodes", "1", hang="launch", policy="")
    assert first.end() == -signal.SIGKILL
    until(lambda: not first.living())
    launch(run, hang="launch", policy="").finish()
    assert attempts(run) == [1, 2]
    assert_identical(run, undisturbed("dp2"))


@pytest.mark.slow
def test_four_failures_at_one_iteration_end_the_job_with_70_and_its_story(
    new_run: Callable[..., Run], launch: Launch
) -> None:
    run = new_run()
    launched = launch(run, hang="error", times=9, at=3, policy="max_restarts: 9")
    assert launched.end() == 70, launched.said[-6000:]
    assert launched.hung.stat().st_size == 4
    assert "given up: 4 lives in a row ended at iteration 1 (no_progress_limit is 4)" in launched.said
    assert launched.living() == []


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "launch"])
def test_ten_failures_with_progress_between_them_are_survived(
    new_run: Callable[..., Run], launch: Launch, how: str
) -> None:
    undisturbed, run = new_run("dp2", name="undisturbed"), new_run("dp2")
    undisturbed.num_ranks = run.num_ranks = 1
    launch(undisturbed, ranks=1, episodes=11).finish()
    fails = functools.partial(launch, run, hang=how, times=10, rank=0, ranks=1, episodes=11, committed=True)
    codes = [fails(policy="max_restarts: 3").end()]
    while codes[-1] == -signal.SIGKILL:
        codes.append(fails(policy="max_restarts: 3").end())
    assert codes == ([0] if how == "kill" else [-signal.SIGKILL] * 10 + [0])
    assert (run.output / "hung").stat().st_size == 10
    assert_identical(run, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "agent"])
@pytest.mark.parametrize("rank", [0, 1])
def test_of_two_nodes_either_may_be_hit(
    undisturbed: Callable[[str], Run], new_run: Callable[..., Run], launch: Launch, how: str, rank: int
) -> None:
    run = new_run()
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    where = ("--nnodes", "2", "--rdzv-endpoint", f"localhost:{port}", "--rdzv-id", f"job{port}")
    both = [launch(run, *where, hang=how, rank=rank, ranks=1) for _ in range(2)]
    for node in both:
        node.finish()
    assert (run.output / "hung").exists()
    assert attempts(run) == [1, 2]
    assert_identical(run, undisturbed("dp2"))
