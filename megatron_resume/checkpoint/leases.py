"""Leases: which process holds a role of an attempt, and whether it still lives."""

import os
import time
from pathlib import Path
from typing import ClassVar

import msgspec

from ..errors import DamagedError
from .atomic import replace, write_new
from .launch_key import boot, started
from .layout import attempt_path
from .records import Launch, Record, encode, read


class Lease(Record, frozen=True, kw_only=True):
    """`attempts/<n>/<role>.lease`: its holder counts it up while it lives, and releases it at its end."""

    max_bytes: ClassVar[int] = 64 << 10

    holder: Launch
    start: str  # names the start of the holder's job on all its ranks; "" where nothing does
    counter: int = 0
    released: bool = False
    iteration: int = 0  # that its holder had reached; for people, never compared


def lease_path(root: Path, attempt: int, role: str) -> Path:
    return attempt_path(root, attempt) / f"{role}.lease"


def claim(root: Path, attempt: int, role: str, lease: Lease) -> None:
    """Take the place of `role` in the attempt. Raises FileExistsError when it is taken."""
    write_new(lease_path(root, attempt, role), encode(lease))


def renew(root: Path, attempt: int, role: str, lease: Lease, iteration: int = 0) -> Lease:
    """Count up; returns the new lease."""
    renewed: Lease = msgspec.structs.replace(lease, counter=lease.counter + 1, iteration=iteration)
    replace(lease_path(root, attempt, role), encode(renewed))
    return renewed


def release(root: Path, attempt: int, role: str, lease: Lease) -> None:
    """Say that the holder ends of its own will, so that nobody has to wait for the lease to run out."""
    replace(lease_path(root, attempt, role), encode(msgspec.structs.replace(lease, released=True)))


def read_lease(root: Path, attempt: int, role: str) -> Lease | None:
    """The lease of `role`; None when its place is free or what stands there cannot be read."""
    path = lease_path(root, attempt, role)
    try:
        return read(path, Lease) if os.path.lexists(path) else None
    except DamagedError:
        return None


def holders(root: Path, attempt: int) -> list[Launch]:
    """Who took a place in the attempt."""
    paths = sorted(attempt_path(root, attempt).glob("*.lease"))
    found = [read_lease(root, attempt, path.stem) for path in paths]
    return [lease.holder for lease in found if lease is not None]


def seems_alive(lease: Lease | None) -> bool | None:
    """Whether the holder of a lease lives; None where only waiting for its counter could tell.

    Dead is a holder that released it, or whose process on this machine is gone.
    """
    if lease is None or lease.released:
        return False
    holder = lease.holder
    if holder.boot and holder.boot == boot():
        return started(holder.pid) == holder.started
    return None


class Watch:
    """Tells `me` which holders of a job live; a lease that was watched in vain is not watched again.

    Waits one lease time where only the counter can tell. Dead at once is also a holder that the same launch has
    restarted since. The clock is our own and monotonic: no two machines' clocks are compared.
    """

    def __init__(self, root: Path, me: Launch, lease_time_s: float):
        self._root, self._me, self._lease_time_s = root, me, lease_time_s
        self._expired: set[Lease] = set()

    def lives(self, attempt: int, role: str) -> bool:
        """Whether somebody who lives holds `role` in the attempt."""
        lease = read_lease(self._root, attempt, role)
        seems = self._seems(lease)
        if lease is None or seems is not None:
            return bool(seems)
        return lease not in self._expired and self._is_renewed(lease, attempt, role)

    def seems(self, attempt: int, role: str) -> bool | None:
        """The same without waiting; None where only that could tell."""
        return self._seems(read_lease(self._root, attempt, role))

    def _seems(self, lease: Lease | None) -> bool | None:
        seems = seems_alive(lease)
        if seems is None and lease is not None and self._was_restarted(lease.holder):
            return False
        return seems

    def _was_restarted(self, holder: Launch) -> bool:
        return holder.job == self._me.job and holder.restart < self._me.restart

    def _is_renewed(self, lease: Lease, attempt: int, role: str) -> bool:
        deadline = time.monotonic() + self._lease_time_s
        while time.monotonic() < deadline:
            now = read_lease(self._root, attempt, role)
            if now is None or now.released:
                return False
            if now.counter != lease.counter:
                return True
            time.sleep(min(0.5, self._lease_time_s / 10))
        self._expired.add(lease)
        return False
