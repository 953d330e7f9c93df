"""A process of a dead attempt that wakes up late changes nothing that a later start uses."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import job_processes
from support.job_on_disk import contents
from support.runs import ASYNC, Ended, Run, Server, assert_identical
from support.waiting import PATIENCE_S, until


class Held:
    """The writer of policy's iteration 4, under SIGSTOP before it opens its file."""

    def __init__(self, report: Path):
        self._report = report
        self.process: job_processes.Process | None = None

    def wait(self) -> None:
        """Return when it stands still."""
        until(self._said)
        self.process = next(p for p in job_processes.living() if p.pid == int(self._said()[0]))

    def wake(self) -> list[str]:
        """Let it go on; returns what it says of opening its file."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)
        held = [self.process]
        until(lambda: "went on" in self._said() or not job_processes.still_living(held))
        return self._said()[1:]

    def _said(self) -> list[str]:
        return self._report.read_text().split("\n")[:-1] if self._report.exists() else []


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    held = Held(tmp_path / "held")
    yield held
    if held.process is not None:
        job_processes.kill(held.process)


def environment(tmp_path: Path) -> dict[str, str | None]:
    return {"HELD": str(tmp_path / "held")}


def models_and_points(run: Run) -> object:
    """Every file of the models, and every file of the resume points."""
    points = {path.name: contents(path) for path in run.data_checkpoint.glob("iter_*")}
    return contents(run.output / "checkpoints"), points


def test_an_orphaned_checkpoint_worker_does_not_reach_the_next_attempts_models(
    new_run: Callable[..., Run], undisturbed: Callable[[str], Run], held: Held, tmp_path: Path
) -> None:
    run = new_run("dp2", *ASYNC)
    run.killed("save.begin@value:2", tamper="writers.holds_a_writer", env=environment(tmp_path))
    held.wait()
    run.finish()
    before = models_and_points(run)
    assert held.wake() == ["FileNotFoundError", "went on"]
    assert models_and_points(run) == before
    assert run.status()["point"] == {"iteration": 6, "attempt": 2}
    assert_identical(run, undisturbed("dp2"))


def test_a_rank_that_was_taken_for_dead_ends_when_it_wakes(
    server: Server, new_run: Callable[..., Run], undisturbed: Callable[[str], Run], held: Held, tmp_path: Path
) -> None:
    run = new_run("dp2")
    other_machine = server.another()
    late = Run(other_machine, run.output, run.flags)
    ends: list[Ended] = []
    thread = threading.Thread(
        target=lambda: ends.append(late.start(tamper="writers.holds_a_writer", env=environment(tmp_path))), daemon=True
    )
    thread.start()
    try:
        held.wait()
        run.starts.append(Ended(0, [], "", False, 0))  # its log has another number
        run.finish("--take-over")
        before = models_and_points(run)
        held.wake()
        thread.join(PATIENCE_S)
        assert ends[0].refused_with == 203, ends[0].log[-6000:]
        assert "attempt 1 was superseded by attempt 2" in ends[0].log
        assert models_and_points(run) == before
        assert run.status()["point"] == {"iteration": 6, "attempt": 2}
        assert_identical(run, undisturbed("dp2"))
    finally:
        other_machine.close()
