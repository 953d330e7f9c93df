"""The thread on rank 0 that renews leases, and ends the process when a newer attempt took the job."""

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from ..checkpoint import attempts, leases
from ..checkpoint.leases import Lease
from ..errors import RejoinError, UnreadableError
from . import life
from .at_end import at_end

logger = logging.getLogger("megatron_resume")


_FIRST_S, _FIRST_EVERY_S = 60.0, 1.0  # when ranks on other machines look whether the lease is of this start


class LeaseKeeper:
    """Renews the leases of this process three times in a lease time, until it ends or is superseded.

    In its first minute more often: by a lease that is counted up other ranks know that it is of a process that lives.
    """

    def __init__(
        self,
        root: Path,
        attempt: int,
        held: dict[str, Lease],
        lease_time_s: float,
        reached: Callable[[], int] = lambda: 0,
    ):
        """`reached` tells the iteration that training has come to."""
        self.root, self.attempt, self._reached = root, attempt, reached
        self._held, self._every_s = dict(held), lease_time_s / 3
        self._first_s = min(_FIRST_EVERY_S, self._every_s)
        self._ended, self._writes = threading.Event(), threading.Lock()
        self._pid = os.getpid()
        threading.Thread(target=self._work, name="megatron_resume leases", daemon=True).start()
        at_end(self.release)

    def take(self, role: str) -> None:
        """Hold this role, too. Raises FileExistsError when its place is taken."""
        of_this_process = next(iter(self._held.values()))
        lease = msgspec.structs.replace(of_this_process, counter=0, iteration=0)
        leases.claim(self.root, self.attempt, role, lease)
        self._held = {**self._held, role: lease}  # the thread may be going through the old one

    def check(self) -> None:
        """Raises RejoinError when a newer attempt began: this process may not save or commit any more.

        UnreadableError where the storage does not say.
        """
        newer = attempts.newer_than(self.root, self.attempt)
        if newer is not None:
            raise superseded(self.attempt, newer)

    def stop_if_superseded(self) -> None:
        """End the process at once when a newer attempt began; for threads, which cannot raise into training."""
        try:
            self.check()
        except RejoinError as error:
            logger.error("%s", error)
            life.ends_by(error)
            # The training thread may wait in a collective for ever; nothing it does counts any more.
            os._exit(error.exit_code)

    def release(self) -> None:
        """Say that this process ends, so that the next start need not wait for the lease to run out."""
        if self._ended.is_set() or os.getpid() != self._pid:  # a forked child holds no lease
            return
        self._ended.set()
        with self._writes:  # a renewal that is under way would be the last word
            for role, lease in self._held.items():
                try:
                    leases.release(self.root, self.attempt, role, lease)
                except OSError as error:
                    logger.warning("the lease of %s cannot be released: %s", role, error)

    def _work(self) -> None:
        begun_s = time.monotonic()
        while not self._ended.wait(self._every_s if time.monotonic() - begun_s > _FIRST_S else self._first_s):
            try:
                self._renew()
            except OSError as error:
                logger.warning("leases in %s cannot be renewed: %s", self.root, error)

    def _renew(self) -> None:
        try:
            self.stop_if_superseded()
        except (
            OSError,
            UnreadableError,
        ) as error:  # who gave no sign meanwhile would be superseded
            logger.warning("attempt %d cannot look for a newer one: %s", self.attempt, error)
        with self._writes:
            for role, lease in self._held.items() if not self._ended.is_set() else ():
                self._held[role] = leases.renew(self.root, self.attempt, role, lease, self._reached())


def superseded(attempt: int, newer: int) -> RejoinError:
    return RejoinError(f"attempt {attempt} was superseded by attempt {newer}; restart to join it")
