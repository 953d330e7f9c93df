"""A job's folder with a life to tell of: attempts at given times, their commits, and all kinds of ends.

Times are seconds from BEGIN on. Most commits are events without a point, as retention leaves them.
"""

from datetime import datetime, timezone
from pathlib import Path

from megatron_resume.checkpoint.attempts import newest_started
from megatron_resume.checkpoint.events import Committed, Event, Failed, Finished, Stopped, Trained
from megatron_resume.checkpoint.failures import Failure, How, write_failure
from megatron_resume.checkpoint.layout import PointName
from megatron_resume.checkpoint.leases import Lease, claim, renew
from megatron_resume.checkpoint.records import Request

from .job_on_disk import JobOnDisk

BEGIN = 1_767_225_600.0  # 2026-01-01


def when(time_s: float) -> str:
    return datetime.fromtimestamp(BEGIN + time_s, timezone.utc).isoformat(timespec="milliseconds")


class EventfulJob(JobOnDisk):
    """Adds what a job says of itself over time."""

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.number = 0  # of the attempt that is told of

    def begins(
        self,
        at_s: float,
        parent: tuple[int, int] | None = None,
        requested: Request | None = None,
        number: int | None = None,
    ) -> None:
        point = PointName(*parent) if parent else None
        self.number = self.attempt(point, created=when(at_s), requested=requested, number=number)

    def says(self, event: Event) -> None:
        self.tell(self.number, event)

    def trains(self, at_s: float) -> None:
        self.says(Trained(time=when(at_s)))

    def commits(self, *commits: tuple[float, int], lag_s: float = 0.0) -> None:
        """Each as (time, iteration)."""
        for at_s, iteration in commits:
            self.says(Committed(time=when(at_s), iteration=iteration, lag_s=lag_s))

    def saves(self, at_s: float, iteration: int) -> None:
        """A point with all its files."""
        self.save(self.number, iteration, time=when(at_s))

    def finishes(self, at_s: float) -> None:
        self.says(Finished(time=when(at_s)))

    def is_preempted(self, at_s: float) -> None:
        self.says(Stopped(time=when(at_s), reason="SIGTERM", exit_code=202))

    def fails(self, at_s: float, iteration: int, *, error: str = "RuntimeError", message: str = "broken") -> None:
        self.says(Failed(time=when(at_s), error=error, message=message, exit_code=1))
        self.is_recorded(at_s, iteration, how="error", error=error, message=message, exit_code=1)

    def hangs(self, at_s: float, iteration: int, silent_s: float) -> None:
        self.is_recorded(at_s, iteration, how="hang", error="hang", exit_code=201, silent_s=silent_s)

    def is_killed(self, at_s: float, iteration: int, trained_s: float = 0.0) -> None:
        self.is_recorded(at_s, iteration, how="killed", signal="SIGKILL", trained_s=trained_s)

    def fails_before_its_attempt(self, at_s: float, life: str) -> None:
        after, self.number = newest_started(self.root), 0
        self.is_recorded(at_s, 0, how="error", error="OSError", message="no network", life=life, after=after)
        self.number = after

    def is_lost_with_its_node(self, renewals: int, iteration: int) -> None:
        """Nothing is told but by the lease, which was renewed so often."""
        lease = Lease(holder=self.launch(), start="")
        claim(self.root, self.number, "policy", lease)
        for _ in range(renewals):
            lease = renew(self.root, self.number, "policy", lease, iteration)

    def is_recorded(
        self,
        at_s: float,
        iteration: int,
        *,
        how: How,
        error: str = "",
        message: str = "",
        exit_code: int | None = None,
        signal: str | None = None,
        silent_s: float = 0.1,
        trained_s: float = 0.0,
        life: str = "life",
        after: int = 0,
    ) -> None:
        """By the watchdog of rank 3."""
        failure = Failure(
            rank=3,
            host="node7",
            pid=1,
            job="job",
            attempt=self.number,
            after=after or self.number,
            how=how,
            error=error,
            message=message,
            exit_code=exit_code,
            signal=signal,
            fatal=False,
            phase="train",
            iteration=iteration,
            silent_s=silent_s,
            trained_s=trained_s,
            loading=None,
            versions={},
            kernel=None,
            time_s=BEGIN + at_s,
        )
        write_failure(self.root, life, failure)
