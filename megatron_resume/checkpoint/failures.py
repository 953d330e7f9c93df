"""How ranks failed, one record for each: written by the watchdog of the rank, read by the next lives of the job.

In `attempts/<n>/failures/` where the attempt had begun. A life that ended before has a folder of its own,
`failures/<life>/`, whose name its ranks have in common.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import msgspec

from ..errors import DamagedError, UnreadableError
from .atomic import make_folder, replace
from .launch_key import launch_key, shared_by_all_ranks
from .layout import PointName, attempt_path
from .records import Record, decode, encode, read_bytes
from .storage import is_link, names_in, patience

FAILURES = "failures"
STACKS = "stacks"
MAX_RANKS = 4_096  # records that are read of one life; the cause is among the first
_SUFFIX = ".json"

How = Literal["error", "hang", "killed", "stopped"]


class Failure(Record, frozen=True, kw_only=True):
    """How one rank ended that did not end well."""

    max_bytes: ClassVar[int] = 64 << 10

    rank: int
    host: str
    pid: int
    job: str  # launch key: the same over the restarts of one launch
    attempt: int  # 0 where none had begun
    after: int  # newest attempt at that time
    how: How
    error: str  # class of the exception; "" where it said nothing
    message: str
    exit_code: int | None  # None where a signal ended it, or nobody can tell
    signal: str | None  # "SIGKILL"
    fatal: bool  # no restart would mend it
    phase: str  # or "idle"
    iteration: int  # that training had come to
    silent_s: float  # seconds since its last progress
    trained_s: float  # seconds since the end of its first train step; 0 before
    loading: PointName | None  # the point that it was loading
    versions: dict[str, str]
    kernel: str | None  # what the kernel said of it
    time_s: Annotated[float, msgspec.Meta(ge=0)]  # since 1970, of its end: the earliest is the cause of the others


def life_of(environ: Mapping[str, str]) -> str:
    """The name of this life of the job: the same on all its ranks, and another after each restart."""
    key = launch_key(environ)
    return life_named(shared_by_all_ranks(environ) or f"{key.job}:{key.restart}")


def life_named(name: str) -> str:
    """The name of the life whose start `name` names on all its ranks, as it stands in its leases."""
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def life_path(root: Path, attempt: int, life: str) -> Path:
    """The folder of what is known of the end of a life."""
    return attempt_path(root, attempt) if attempt else root / FAILURES / life


def failures_path(root: Path, attempt: int, life: str) -> Path:
    """Where its failures are: a life without an attempt has a folder for nothing else."""
    path = life_path(root, attempt, life)
    return path / FAILURES if attempt else path


def write_failure(root: Path, life: str, failure: Failure) -> Path:
    """Store one rank's record. Raises OSError where that cannot be."""
    folder = failures_path(root, failure.attempt, life)
    make_folder(folder, below=root)
    path = folder / f"rank_{failure.rank}{_SUFFIX}"
    replace(path, encode(failure), below=root)
    return path


def read_failures(folder: Path) -> list[Failure]:
    """What lies in one folder of failures, earliest first; what cannot be read is left out, for it decides little."""
    found: list[Failure] = []
    with patience(0):  # a point that could not be loaded is tried once more for want of a record, which loses nothing
        try:
            names = [] if is_link(folder) else sorted(names_in(folder))[:MAX_RANKS]
        except UnreadableError:
            return found
        for name in names:
            if name.startswith("rank_") and name.endswith(_SUFFIX):
                try:
                    found.append(decode(read_bytes(folder / name, Failure.max_bytes), Failure, name))
                except (DamagedError, UnreadableError):
                    continue
    return sorted(found, key=lambda failure: failure.time_s)
