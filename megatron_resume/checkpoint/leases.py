"""Leases: which process holds a role of an attempt, and whether it still lives.

Only proof of death counts: its process was seen to be gone by one who may see it. What cannot be seen is not dead, and
what cannot be read is not free: then the lease is watched, for as long as its holder has to renew it.
"""

import errno
import os
import time
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple

import msgspec

from ..errors import DamagedError, UnreadableError
from .atomic import replace, write_new
from .launch_key import is_gone
from .layout import attempt_path
from .plain_files import open_plain
from .records import Launch, Record, decode, encode, why_unreadable
from .storage import names_in

MAX_TIME_S = 86_400.0  # as long as the option may be


class Lease(Record, frozen=True, kw_only=True):
    """`attempts/<n>/<role>.lease`: its holder counts it up while it lives, and releases it at its end."""

    max_bytes: ClassVar[int] = 64 << 10

    holder: Launch
    start: str  # names the start of the holder's job on all its ranks; "" where nothing does
    counter: int = 0
    released: bool = False
    iteration: int = 0  # that its holder had reached; for people, never compared
    # Within which its holder counts it up; 0: an older release, which does not say it.
    time_s: Annotated[float, msgspec.Meta(ge=0, le=MAX_TIME_S)] = 0.0


class Unreadable(NamedTuple):
    """Something stands where a lease belongs, and cannot be read: nobody can tell whose it is."""

    why: str
    errno: int


class Damaged(NamedTuple):
    """What stands where a lease belongs was written by nobody who holds it."""

    content: bytes


Place = Lease | Damaged | Unreadable | None  # of a role in an attempt; None: it is free


def lease_path(root: Path, attempt: int, role: str) -> Path:
    return attempt_path(root, attempt) / f"{role}.lease"


def claim(root: Path, attempt: int, role: str, lease: Lease) -> None:
    """Take the place of `role` in the attempt. Raises FileExistsError when it is taken."""
    write_new(lease_path(root, attempt, role), encode(lease), below=root)


def renew(root: Path, attempt: int, role: str, lease: Lease, iteration: int = 0) -> Lease:
    """Count up; returns the new lease."""
    renewed: Lease = msgspec.structs.replace(lease, counter=lease.counter + 1, iteration=iteration)
    replace(lease_path(root, attempt, role), encode(renewed), below=root)
    return renewed


def release(root: Path, attempt: int, role: str, lease: Lease) -> None:
    """Say that the holder ends of its own will, so that nobody has to wait for the lease to run out."""
    replace(lease_path(root, attempt, role), encode(msgspec.structs.replace(lease, released=True)), below=root)


def place(root: Path, attempt: int, role: str) -> Place:
    """What stands in the place of `role`."""
    path = lease_path(root, attempt, role)
    try:
        with open_plain(path) as file:
            content = file.read(Lease.max_bytes)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in (errno.EBADMSG, errno.EUCLEAN):  # the file system knows that its content is lost
            return Damaged(os.strerror(error.errno).encode())
        return Unreadable(why_unreadable(path, error), error.errno or errno.EIO)
    try:
        return decode(content, Lease, path)
    except DamagedError:
        return Damaged(content)


def read_lease(root: Path, attempt: int, role: str) -> Lease | None:
    """The lease of `role`, for those who tell of it; None when its place is free or cannot be read."""
    found = place(root, attempt, role)
    return found if isinstance(found, Lease) else None


def holders(root: Path, attempt: int) -> list[Launch]:
    """Who took a place in the attempt.

    Raises:
        UnreadableError: The storage does not say.
    """
    names = sorted(name for name in names_in(attempt_path(root, attempt)) if name.endswith(".lease"))
    found = [place(root, attempt, name.removesuffix(".lease")) for name in names]
    for one in found:
        if isinstance(one, Unreadable):
            raise UnreadableError(one.why)
    return [one.holder for one in found if isinstance(one, Lease)]


def seems_alive(found: Place) -> bool | None:
    """Whether there is a holder that lives; None where only waiting could tell.

    Dead is a holder that released its lease, or whose process on this machine is gone.
    """
    if not isinstance(found, Lease):
        return None if found else False
    gone = True if found.released else is_gone(found.holder)
    return None if gone is None else not gone


class Watch:
    """Tells which holders of a job live; a lease that was watched in vain is not watched again.

    Waits as long as the holder has to give a sign, where only that can tell. The clock is our own and monotonic: no two
    machines' clocks are compared.
    """

    def __init__(self, root: Path, lease_time_s: float):
        """`lease_time_s` is that of holders which do not tell theirs."""
        self._root, self._lease_time_s = root, lease_time_s
        self._expired: set[Place] = set()

    def lives(self, attempt: int, role: str) -> bool:
        """Whether somebody who lives holds `role` in the attempt, as far as anybody can tell."""
        found = place(self._root, attempt, role)
        seems = seems_alive(found)
        if seems is not None:
            return seems
        return found not in self._expired and self._gives_a_sign(found, attempt, role)

    def seems(self, attempt: int, role: str) -> bool | None:
        """The same without waiting; None where only that could tell."""
        return seems_alive(place(self._root, attempt, role))

    def time_s(self, found: Place) -> float:
        """How long to wait for a sign of who holds it."""
        return (isinstance(found, Lease) and found.time_s) or self._lease_time_s

    def _gives_a_sign(self, found: Place, attempt: int, role: str) -> bool:
        """Whether it changes; or cannot be read for a whole lease time, so that nobody can tell."""
        deadline = time.monotonic() + self.time_s(found)
        while time.monotonic() < deadline:
            time.sleep(min(0.5, self.time_s(found) / 10))
            now = place(self._root, attempt, role)
            seems = seems_alive(now)
            if seems is not None:
                return seems
            if isinstance(now, Unreadable) or now == found:
                continue
            if not isinstance(found, Unreadable):
                return True
            found, deadline = now, time.monotonic() + self.time_s(now)  # only now it can be seen to stand still
        if isinstance(found, Unreadable):
            return True
        self._expired.add(found)
        return False
