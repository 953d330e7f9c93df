"""Torture: runs of the example whose processes are killed at random, until each came to the right end."""

import itertools
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from . import job_processes
from .job_processes import Process
from .killer import Kill, Killer
from .runs import ASYNC, EPISODES, SYNC, Ended, Run, assert_identical

VARIANTS = (("dp2", "sync", SYNC), ("tp2", "async", ASYNC), ("dp2", "async", ASYNC), ("tp2", "sync", SYNC))
MOST_KILLS_OF_A_RUN = 4
REFUSED = {65, 70, 78, 203}
OURS = {-9, -15}  # by our signal; the launcher ends the other ranks with the second
OF_SETUP = 0.4  # of an undisturbed start, until the first episode; measured
OF_REFERENCE = 0.8  # the first start of an undisturbed run also makes the frozen models
PATIENCE = 1.5  # how many undisturbed starts a job may take to end after a kill
DEATH_TAKES_S = 5.0
# How Megatron and torch in the other processes notice that one was killed; nothing else may be raised.
NOTICED = {"EOFError", "BrokenPipeError", "ConnectionResetError", "ConnectionRefusedError", "RuntimeError"}
HANDLED = "'ForkAwareLocal' object has no attribute 'connection'"  # how a process makes its first connection to a queue

NewRun = Callable[[str, str, tuple[str, ...]], Run]


class TortureFailed(Exception):
    """A run did what no run may do after a kill; the message says what and names the log."""


@dataclass
class Tally:
    """What happened so far."""

    kills: Counter[tuple[str, str]] = field(default_factory=Counter)  # (victim, what the job was doing)
    begun: Counter[str] = field(default_factory=Counter)  # where the starts went on from
    warned: Counter[str] = field(default_factory=Counter)  # warnings of the package, without their numbers
    noticed: Counter[str] = field(default_factory=Counter)  # how other processes ended when one was killed
    starts: int = 0
    attempts: int = 0
    identical: int = 0  # runs that came to their end and equal the undisturbed one
    hung: int = 0
    rerun: int = 0  # iterations
    most_rerun: int = 0  # iterations of one run per kill of it
    started: float = field(default_factory=time.monotonic)
    failures: list[str] = field(default_factory=list)

    @property
    def num_kills(self) -> int:
        return sum(self.kills.values())

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


class Torture:
    """Kills processes of runs that `new_run(name, shape, flags)` makes, and compares them with `undisturbed(shape)`.

    The seed settles how many kills, of whom and after what time; where they hit depends on the machine.
    """

    def __init__(
        self,
        new_run: NewRun,
        undisturbed: Callable[[str], Run],
        *,
        seed: int,
        show: Callable[[str, Tally], None] = lambda line, tally: None,
    ):
        self._new_run, self._undisturbed, self._show = new_run, undisturbed, show
        self._chance = random.Random(seed)
        self._start_s: dict[tuple[str, ...], float] = {}  # by a run's flags, how long an undisturbed start takes
        self.tally = Tally()

    def until(self, kills: int, *, failures: int = 1) -> Tally:
        """Run after run until so many kills were delivered or so many runs failed, whose folders are kept."""
        tally = self.tally
        for number, (shape, save, flags) in enumerate(itertools.cycle(VARIANTS), 1):
            if tally.num_kills >= kills or len(tally.failures) >= failures:
                return tally
            reference = self._undisturbed(shape)
            run = self._new_run(f"{number:03d}.{shape}.{save}", shape, flags)
            self._start_s.setdefault(run.flags, OF_REFERENCE * reference.starts[0].seconds)
            wanted = min(self._chance.randint(1, MOST_KILLS_OF_A_RUN), kills - tally.num_kills)
            try:
                self._torture(run, reference, wanted)
            except TortureFailed as failed:
                tally.failures.append(str(failed))
                self._show(f"FAILED: {failed}", tally)
            else:
                shutil.rmtree(run.output)
        raise AssertionError("unreachable")

    def _torture(self, run: Run, reference: Run, wanted: int) -> None:
        """Kill `wanted` times, let the run come to its end, compare it."""
        began, delivered = time.monotonic(), 0
        while True:
            ended, kill = self._start(run, disturbed=delivered < wanted)
            if kill is not None:
                delivered += 1
            if ended.code == 0:
                break
        try:
            self._count(run, delivered)
            assert_identical(run, reference)
        except (AssertionError, ValueError) as error:
            raise TortureFailed(f"{run.output} differs from the undisturbed run: {error}") from error
        self.tally.identical += 1
        seconds = time.monotonic() - began
        self._show(
            f"{run.output.name}: identical after {delivered} kills, {len(run.starts)} starts, {seconds:.0f} s",
            self.tally,
        )

    def _start(self, run: Run, *, disturbed: bool) -> tuple[Ended, Kill | None]:
        share = OF_SETUP + (1 - OF_SETUP) * (EPISODES - _episodes_committed(run)) / EPISODES
        start_s = self._start_s[run.flags]
        # Less often early: a third of a start goes by before there is much to break.
        delay_s = start_s * share * self._chance.random() ** 0.7 if disturbed else None
        log = run.output / f"start{len(run.starts) + 1}.log"
        killer = Killer(run.server.pid, log, delay_s, PATIENCE * start_s, random.Random(self._chance.random()))
        killer.start()
        try:
            ended = run.start()
        finally:
            killer.job_is_over()
        if ended.code == 0 and killer.kill and killer.kill.victim not in job_processes.HELPERS:
            killer.kill = None  # it came when the job had reported its end
        if ended.code == 0 and killer.kill is None:
            self._start_s[run.flags] = ended.seconds / share  # the machine may be busier than it was
        self._count_start(run, ended, killer)
        _check_end(log, ended, killer)
        return ended, killer.kill

    def _count_start(self, run: Run, ended: Ended, killer: Killer) -> None:
        kill = killer.kill
        if kill is not None:
            self.tally.kills[kill.victim, kill.doing] += 1
            self._show(
                f"kill {self.tally.num_kills}: {kill.victim} while {kill.doing}, {run.output.name} start "
                f"{len(run.starts)} after {kill.after_s:.1f} s; {'hung' if killer.hung else f'code {ended.code}'}",
                self.tally,
            )
        self.tally.starts += 1
        self.tally.hung += killer.hung
        found = re.search(r"attempt \d+ (starts fresh|resumes from iteration \d+)", ended.log)
        self.tally.begun[found[1] if found else "killed before it said"] += 1
        for warning in re.findall(r"WARNING:megatron_resume[^:]*:(.*)", ended.log):
            self.tally.warned[re.sub(r"\d+", "N", warning)[:150]] += 1
        self.tally.noticed.update(errors(ended.log))

    def _count(self, run: Run, kills: int) -> None:
        iterations = (run.output / "trace.jsonl").read_text().count("\n")
        rerun = iterations - len(run.trace())
        self.tally.rerun += rerun
        self.tally.most_rerun = max(self.tally.most_rerun, -(-rerun // max(1, kills)))
        self.tally.attempts += len(list((run.data_checkpoint / "attempts").iterdir()))


def errors(log: str) -> list[str]:
    """The errors that stand below the tracebacks of a log, with the name of their module."""
    lines = "\n".join(line for line in log.splitlines() if HANDLED not in line)
    return re.findall(r"^((?:\w+\.)*[A-Z]\w*(?:Error|Exception|Interrupt))\b", lines, re.MULTILINE)


def _episodes_committed(run: Run) -> int:
    points = run.data_checkpoint.glob("iter_*/COMMITTED")
    iterations = [int(point.parent.name.split("_")[1].split(".")[0]) for point in points]
    return max(iterations, default=0) // 2


def _check_end(log: object, ended: Ended, killer: Killer) -> None:
    """Raises TortureFailed for anything but an end with 0, or by our signal, that leaves nothing alive."""
    problem = next(_problems(ended, killer), None)
    if problem is not None:
        raise TortureFailed(f"{problem}; see {log}")


def _problems(ended: Ended, killer: Killer) -> Iterator[str]:
    kill = killer.kill
    codes = {ended.code, *ended.codes}
    after = f"after {kill.victim} was killed while {kill.doing}" if kill else "without a kill"
    if ended.timed_out:
        yield f"the start did not end {after}"
    if codes & REFUSED:
        yield f"exit codes {ended.codes} {after}"
    if kill is None and ended.code != 0:
        yield f"exit codes {ended.codes} {after}"
    # A rank whose helper was killed may end with an error of Megatron's.
    of_helper = kill is not None and kill.victim in job_processes.HELPERS
    if ended.code != 0 and not codes & OURS and not of_helper:
        yield f"exit codes {ended.codes} {after}"
    # Once one rank is dead, the others' collectives fail; before that nothing may.
    if "Traceback" in (kill.log_before if kill else ended.log):
        yield f"a traceback {after}"
    strange = [error for error in errors(ended.log) if error.rpartition(".")[2] not in NOTICED]
    if strange:
        yield f"{', '.join(strange)} {after}"
    if "ERROR:megatron_resume" in ended.log:
        yield f"an error of the package {after}"
    left = _left_alive(killer)
    if left:
        yield f"processes {[process.pid for process in left]} live on {after}"


def _left_alive(killer: Killer) -> list[Process]:
    """Who of the job lives on, when all had the time to die that a SIGKILL takes."""
    sessions = {process.session for process in killer.seen}
    deadline = time.monotonic() + DEATH_TAKES_S
    while True:
        left = {*job_processes.still_living(killer.seen)}
        left |= {process for process in job_processes.living() if process.session in sessions}
        if not left or time.monotonic() > deadline:
            return sorted(left, key=lambda process: process.pid)
        time.sleep(0.02)
