"""Three starts at once beside a holder that renews, is stopped, died, cannot write, or is another user's.

Each is refused or takes the job as only the proof of death allows: never do two hold it, and never nobody does whose
lease is over.
"""

import itertools
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from support.ordinary_user import NOBODY, open_folder
from support.pool import MEGATRON, Pool, Program

PROGRAM = Path(__file__).with_name("starting.py")
NUM_STARTS = 3
ROUNDS = 100
ELSEWHERE, AS_NOBODY = "other_machine=A", f"user={NOBODY}"
_LONG, _SHORT = "lease_time=9", "lease_time=3"  # a holder that is to renew in it has to be run in time


class Case(NamedTuple):
    """What the holder is, what happens to it, and whether one of the starts takes the job then."""

    holder: tuple[str, ...]
    happens: Callable[[Program], object] = lambda holder: None
    ends: Callable[[Program], object] = lambda holder: None  # what had happened
    is_taken: bool = False
    start: tuple[str, ...] = ()
    code: int | None = 203  # of the holder after it had ended; None: it lives on


def stop(holder: Program) -> None:
    holder.send_signal(signal.SIGSTOP)


def go_on(holder: Program) -> None:
    holder.send_signal(signal.SIGCONT)


def may_write_nothing(holder: Program) -> None:
    resource.prlimit(holder.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def may_write(holder: Program) -> None:
    resource.prlimit(holder.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


CASES = {
    "renews": Case((_LONG,), code=None),
    "renews elsewhere": Case((_LONG, ELSEWHERE), code=None),
    "renews elsewhere, and cannot be read": Case((_SHORT, ELSEWHERE), start=("unreadable",), code=None),
    "renews elsewhere, for longer than the starts": Case((_LONG, ELSEWHERE), start=("lease_time=1",), code=None),
    "is stopped": Case((_SHORT,), stop, go_on, code=None),
    "is stopped elsewhere": Case((_SHORT, ELSEWHERE), stop, go_on, is_taken=True),
    "died": Case((_LONG,), Program.kill, is_taken=True, code=-signal.SIGKILL),
    "died elsewhere": Case((_SHORT, ELSEWHERE), Program.kill, is_taken=True, code=-signal.SIGKILL),
    "cannot write": Case((_SHORT,), may_write_nothing, may_write, code=None),
    "cannot write elsewhere": Case((_SHORT, ELSEWHERE), may_write_nothing, may_write, is_taken=True),
    "is another user's": Case((_LONG, "private"), start=(AS_NOBODY,), code=None),
}


class Starts:
    """Starts on one folder, which may be seen by several names."""

    def __init__(self, pool: Pool, roots: tuple[Path, ...]) -> None:
        self._pool, self._roots = pool, itertools.cycle(roots)
        self._running: list[Program] = []

    def begin(self, *words: str) -> Program:
        process = Program(self._pool, PROGRAM, str(next(self._roots)), *words, kind=MEGATRON)
        self._running.append(process)
        return process

    def end(self) -> None:
        for process in self._running:
            process.close()
        self._running.clear()

    def round(self, case: Case) -> None:
        holder = self.begin("hold", "take_over", *case.holder)
        told = holder.stdout.readline()
        assert told.startswith("attempt "), told
        case.happens(holder)
        starts = [self.begin("hold", _SHORT, *case.start) for _ in range(NUM_STARTS)]
        said = [start.stdout.readline().strip() for start in starts]
        begun = [start for start, line in zip(starts, said, strict=True) if line.startswith("attempt ")]
        assert len(begun) == case.is_taken, said
        assert {start.wait() for start in starts if start not in begun} <= {78, 203}, said
        case.ends(holder)
        if case.code is None:
            assert holder.poll() is None, "it holds the job"
        else:
            assert holder.wait() == case.code
        assert [start.poll() for start in begun] == [None] * len(begun)
        self.end()


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as base:
        yield base


@pytest.fixture
def starts(pool: Pool) -> Iterator[Callable[..., Starts]]:
    made: list[Starts] = []

    def make(*roots: Path) -> Starts:
        made.append(Starts(pool, roots))
        return made[-1]

    yield make
    for one in made:
        one.end()


def possible(cases: dict[str, Case]) -> dict[str, Case]:
    """All but those for which one has to be root."""
    return {name: case for name, case in cases.items() if os.geteuid() == 0 or AS_NOBODY not in case.start}


def test_of_three_starts_at_once_as_many_begin_as_the_holder_allows(
    starts: Callable[..., Starts], folder: Path
) -> None:
    """All cases at once, each on a folder of its own: most of their time they wait for a lease to be over."""
    cases = possible(CASES)
    with ThreadPoolExecutor(len(cases)) as threads:
        rounds = {
            name: threads.submit(starts(folder / str(number)).round, case)
            for number, (name, case) in enumerate(cases.items())
        }
    assert {name: str(error) for name, round in rounds.items() if (error := round.exception())} == {}


@pytest.fixture(params=["disk", "tmpfs"])
def two_mounts(request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[Path, Path]]:
    """One file system that is mounted twice."""
    one, *places = (folder / name for name in ("storage", "here", "there"))
    for place in (one, *places):
        place.mkdir()
    commands = [["mount", "--bind", str(one), str(place)] for place in places]
    if request.param == "tmpfs":
        commands.insert(0, ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(one)])
    done: list[str] = []
    try:
        for command in commands:
            said = subprocess.run(command, capture_output=True, text=True)
            if said.returncode != 0:
                pytest.skip(f"nothing can be mounted here: {said.stderr.strip()}")
            done.append(command[-1])
        yield places[0], places[1]
    finally:
        for place in reversed(done):
            subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.slow
def test_a_hundred_rounds_of_three_over_two_mounts(
    starts: Callable[..., Starts], two_mounts: tuple[Path, Path]
) -> None:
    here, there = (place / "data_checkpoint" for place in two_mounts)
    on_both = starts(here, there)
    for _, case in zip(range(ROUNDS), itertools.cycle(possible(CASES).values()), strict=False):
        on_both.round(case)
