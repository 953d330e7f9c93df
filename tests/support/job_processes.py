"""The processes of a running job as /proc shows them, and how to end one of them for certain."""

import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

LEADER, QUEUE, WORKER, ORPHAN = "leader", "result queue", "checkpoint worker", "orphaned helper"
HELPERS = (QUEUE, WORKER, ORPHAN)


@dataclass(frozen=True)
class Process:
    """One process; its number and its start time together belong to nobody else until the next boot."""

    pid: int
    started: int  # clock ticks since boot
    parent: int
    session: int


def living() -> list[Process]:
    """All processes of this machine but the dead that nobody has waited for, oldest first."""
    found = [process for entry in Path("/proc").iterdir() if entry.name.isdecimal() and (process := _read(entry))]
    return sorted(found, key=lambda process: (process.started, process.pid))


def _read(entry: Path) -> Process | None:
    try:
        pid, _, rest = (entry / "stat").read_text(errors="replace").partition(" (")
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = rest.rpartition(")")[2].split()  # the name may hold blanks and brackets
    if state in "ZX":
        return None
    return Process(int(pid), started=int(fields[18]), parent=int(fields[0]), session=int(fields[2]))


def leader_of(server: int) -> Process | None:
    """The leader of the job that the server runs now."""
    leaders = [process for process in living() if process.parent == server and process.session == process.pid]
    return leaders[0] if leaders else None


def session_of(leader: Process) -> list[Process]:
    return [process for process in living() if process.session == leader.pid]


def still_living(known: Iterable[Process]) -> list[Process]:
    return sorted(set(known) & set(living()), key=lambda process: process.pid)


def by_kind(leader: Process, session: list[Process]) -> dict[str, list[Process]]:
    """The processes of a job's session by what they are there for."""
    ranks = [process for process in session if process.parent == leader.pid]
    kinds = {LEADER: [process for process in session if process == leader]}
    kinds |= {f"rank {number}": [rank] for number, rank in enumerate(ranks)}
    helpers = [process for process in session if process not in ranks and process != leader]
    # Each rank forks the process of its result queue first, before the script runs.
    queues = [own[0] for rank in ranks if (own := [helper for helper in helpers if helper.parent == rank.pid])]
    others = [helper for helper in helpers if helper not in queues]
    of_a_rank = {rank.pid for rank in ranks}
    kinds[QUEUE] = queues
    kinds[WORKER] = [helper for helper in others if helper.parent in of_a_rank]
    kinds[ORPHAN] = [helper for helper in others if helper.parent not in of_a_rank]
    return {kind: processes for kind, processes in kinds.items() if processes}


def kill(process: Process) -> bool:
    """Send SIGKILL; False when the process had ended already."""
    try:
        descriptor = os.pidfd_open(process.pid)  # from here on its number cannot pass to another process
    except ProcessLookupError:
        return False
    try:
        if not still_living([process]):
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True
