"""A thread that waits, then sends SIGKILL to a random process of the job that the server runs."""

import random
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from . import job_processes
from .job_processes import Process

EVERYTHING = "all at once"
POLL_S = 0.005

# What the job does from the last of these lines on; the later pattern holds where two match.
_DOING = (
    (r"sharded_state_dict metadata|loading .*checkpoint|GPTModel IS|megatron_resume:attempt", "loading"),
    (r"successfully loaded checkpoint", "loading"),
    (r"committed iteration", "rolling out"),
    (r"iteration \d+/\d+ reward", "training"),
    (r"saving checkpoint at|(scheduled|saved) .*/policy", "saving"),
    (r"successfully saved .*/value", "committing"),
    (r"scheduled an async .*/value", "saving alongside"),
)
_NUM_LOADS = 4  # one per role; more are made by the final comparison with the folders
_LAST_ITERATION = re.compile(r"iteration (\d+)/\1 reward")


@dataclass(frozen=True)
class Kill:
    """A SIGKILL that was delivered."""

    victim: str
    doing: str
    after_s: float  # since the job's leader appeared
    log_before: str


class Killer(threading.Thread):
    """Kills once, `delay_s` after the job began, unless the job is over by then; without a delay it only looks."""

    def __init__(self, server: int, log: Path, delay_s: float | None, patience_s: float, chance: random.Random):
        super().__init__(name="killer", daemon=True)
        self._server, self._log, self._delay_s, self._patience_s = server, log, delay_s, patience_s
        self._chance = chance
        self._over = threading.Event()
        self.kill: Kill | None = None
        self.hung = False  # the job lived on without its victim, so everything was killed
        self.seen: set[Process] = set()  # of the job's session, whenever somebody looked

    def job_is_over(self) -> None:
        """Call when the server has answered; nothing is killed after it returns."""
        self._over.set()
        self.join()

    def run(self) -> None:
        leader = self._wait_for_leader()
        if leader is None or self._delay_s is None or self._over.wait(self._delay_s):
            return
        self.kill = self._kill_one(leader)
        if self.kill is not None and not self._over.wait(self._patience_s):
            self.hung = True
            self._kill_all(leader)

    def _wait_for_leader(self) -> Process | None:
        while not self._over.wait(POLL_S):
            leader = job_processes.leader_of(self._server)
            if leader is not None:
                self._began = time.monotonic()
                self.seen.add(leader)
                return leader
        return None

    def _kill_one(self, leader: Process) -> Kill | None:
        kinds = job_processes.by_kind(leader, self._look(leader))
        victim = self._chance.choice([*kinds, EVERYTHING])
        log = self._log.read_text(errors="replace") if self._log.exists() else ""
        after_s = time.monotonic() - self._began
        if victim == EVERYTHING:
            delivered = self._kill_all(leader)
        else:
            delivered = victim in kinds and job_processes.kill(self._chance.choice(kinds[victim]))
        return Kill(victim, doing(log), after_s, log) if delivered else None

    def _kill_all(self, leader: Process) -> bool:
        """Whether anything was left to kill. The leader goes last, so that nobody is ended by its end."""
        victims = sorted(self._look(leader), key=lambda process: process == leader)
        ended = [job_processes.kill(victim) for victim in victims]
        return any(ended)

    def _look(self, leader: Process) -> list[Process]:
        session = job_processes.session_of(leader)
        self.seen.update(session)
        return session


def doing(log: str) -> str:
    """What a job was doing whose log ends so."""
    phase = next((phase for line in reversed(log.splitlines()) if (phase := _phase(line))), "setting up")
    trained = _LAST_ITERATION.search(log)
    if phase in ("loading", "rolling out") and trained:
        return "ending"
    if phase == "loading" and log.count("successfully loaded checkpoint") == _NUM_LOADS:
        return "rolling out"
    return phase


def _phase(line: str) -> str | None:
    return next((phase for pattern, phase in reversed(_DOING) if re.search(pattern, line)), None)
