"""SIGTERM to a real launch of the example: to `launch`, to torchrun's agent, to one rank, to the whole group."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from megatron_resume.checkpoint.lives import lives
from megatron_resume.processes import descendants
from megatron_resume.resume.budget import is_free
from support.runs import ASYNC, EPISODES, EXAMPLE, RARE, SMALL, TAMPERED, Run, assert_identical, status_of

pytestmark = pytest.mark.slow

STOPPED = 202
ENTRY = EXAMPLE / "entry" / "train_rlhf.py"


class Launched:
    """`megatron-resume launch` of the example, whose ranks stop and tell when they are where SIGTERM is due."""

    def __init__(
        self,
        run: Run,
        at: str,
        flags: tuple[str, ...],
        tamper: str | None = "sigterm.tells_where_it_is",
        episodes: int = EPISODES,
    ) -> None:
        self.at = run.output.parent / "there"
        self.at.mkdir()
        command = [sys.executable, "-m", "megatron_resume", "launch", "--nproc-per-node", "2", "--"]
        script = [str(ENTRY)] if tamper is None else [str(TAMPERED), tamper]
        arguments = [*run.arguments(), *SMALL, "--num-episodes", str(episodes), *run.flags, *flags]
        self.log = run.output.parent / "launch.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, *script, *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TOLD_AT": at, "THERE": str(self.at)},
                start_new_session=True,
            )

    def pid_of(self, who: str) -> int:
        """Process id, or with a minus that of a group."""
        if who == "launch":
            return self.process.pid
        if who == "the group":
            return -self.process.pid
        ranks = [int(path.read_text()) for path in sorted(self.at.glob("rank*"))]
        return ranks[1] if who == "a rank" else int(Path(f"/proc/{ranks[1]}/stat").read_text().split()[3])

    def tell(self, who: str, number: signal.Signals = signal.SIGTERM) -> int:
        """The signal, once all ranks are there; the exit code of `launch`."""
        until(lambda: len(list(self.at.glob("rank*"))) == 2, self)
        pid = self.pid_of(who)
        (os.killpg if pid < 0 else os.kill)(abs(pid), number)
        (self.at / "go_on").touch()
        return self.process.wait(300)


def until(happened: Callable[[], object], job: Launched) -> None:
    deadline = time.monotonic() + 300  # of a test that fails
    while not happened():
        assert job.process.poll() is None, job.log.read_text()[-6000:]
        assert time.monotonic() < deadline, job.log.read_text()[-6000:]
        time.sleep(0.05)


@pytest.fixture
def launched() -> Iterator[Callable[..., Launched]]:
    made: list[Launched] = []

    def make(*args: object, **options: object) -> Launched:
        made.append(Launched(*args, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        for pid in [one.process.pid, *descendants(one.process.pid)] if one.process.poll() is None else []:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("who", ["launch", "the agent", "a rank", "the group"])
@pytest.mark.parametrize("at", ["train", "rollout"])
def test_launch_ends_with_202_and_the_next_start_goes_on_exactly(
    new_run: Callable[..., Run],
    undisturbed: Callable[[str], Run],
    launched: Callable[..., Launched],
    at: str,
    who: str,
) -> None:
    run = new_run()
    run.output.mkdir()
    flags = RARE if at == "train" else ()
    job = launched(run, at, flags)
    code = job.tell(who)
    assert code == STOPPED, job.log.read_text()[-8000:]
    run.finish()
    assert_identical(run, undisturbed("dp2"))


def test_what_came_to_launch_is_named_by_status(new_run: Callable[..., Run], launched: Callable[..., Launched]) -> None:
    run = new_run()
    run.output.mkdir()
    job = launched(run, "train", RARE)
    assert job.tell("launch", signal.SIGUSR1) == STOPPED, job.log.read_text()[-8000:]
    (process,) = status_of(run.data_checkpoint)["attempts"][0]["processes"]
    assert process["says"] == "stopped with exit code 202: SIGUSR1"


def test_workers_of_an_asynchronous_save_outlive_the_signal_that_torchrun_sends_to_all_processes_of_a_rank(
    new_run: Callable[..., Run], launched: Callable[..., Launched]
) -> None:
    run = new_run("dp2", *ASYNC)
    run.output.mkdir()
    job = launched(run, "", (), tamper=None, episodes=100)
    until(lambda: list(run.data_checkpoint.glob("*/COMMITTED")), job)
    job.process.send_signal(signal.SIGTERM)
    assert job.process.wait(300) == STOPPED, job.log.read_text()[-8000:]
    assert is_free(next(lives(run.data_checkpoint)))
    begun = re.findall(r"saving checkpoint at iteration +(\d+)", job.log.read_text())
    assert run.status()["point"] == {"iteration": int(begun[-1]), "attempt": 1}, "the save that was on its way counts"


def test_data_workers_do_too_so_that_the_loop_comes_to_its_last_save(
    new_run: Callable[..., Run], undisturbed: Callable[[str], Run], launched: Callable[..., Launched]
) -> None:
    run = new_run()
    run.output.mkdir()
    job = launched(run, "train", RARE, tamper="sigterm.draws_with_workers_and_tells")
    assert job.tell("launch") == STOPPED, job.log.read_text()[-8000:]
    assert is_free(next(lives(run.data_checkpoint)))
    run.finish()
    assert_identical(run, undisturbed("dp2"))
