"""Begin or join an attempt: rank 0 decides, takes a number and the places of its roles; all others follow."""

import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from ..checkpoint import attempts, commit, leases
from ..checkpoint.folder import Folder, read_folder, read_point, start_of
from ..checkpoint.launch_key import launch_key, shared_by_all_ranks
from ..checkpoint.layout import PointName, point_path
from ..checkpoint.leases import Lease, Watch
from ..checkpoint.links import check_links
from ..checkpoint.lives import iteration_reached
from ..checkpoint.records import Launch, Start
from ..checkpoint.untrained import write_untrained
from ..config import ResumeConfig
from ..crash import crash_point
from ..errors import ConfigError, RejoinError, ResumeError
from ..installed import installed_versions
from ..resume import role_set
from ..resume.choose import Fresh, Resume, head, lineage_before, live_line
from .decision import accepted, check_free, decide, held_by, may_join, outcome_at, request_of, roles_here
from .ending import naming_the_path

logger = logging.getLogger("megatron_resume")

YIELD_S = 10.0  # how long a start waits for another one that began just before it
FOLLOW_S = 600.0  # how long other ranks wait for rank 0's decision
_POLL_S = 0.05


class Begun(NamedTuple):
    """What rank 0 holds after a start."""

    outcome: Fresh | Resume
    start: Start
    leases: dict[str, Lease]  # of the roles of this process
    joined: bool  # another role's job opened the attempt


def watch(root: Path, config: ResumeConfig) -> Watch:
    """Who tells this process which holders live. One for the whole start, so that it waits for none twice."""
    return Watch(root, config.resume_lease_time)


def decide_on_rank_0(root: Path, config: ResumeConfig, watch: Watch) -> Fresh | Resume:
    """What this start does, before anything is changed. On rank 0 only.

    Raises:
        ResumeError: The start is refused.
    """
    launch = launch_key(os.environ)
    _check_launch_is_named(config)
    folder, outcome = decide(root, config, launch)
    accepted(outcome)
    if not may_join(folder, config, watch.lives):
        check_free(folder, config, watch.lives)
        return accepted(outcome)
    parent = folder.starts[max(folder.starts)].parent
    return outcome_at(root, config, parent, requested=False, read=read_point)


def decide_alone(root: Path, config: ResumeConfig) -> Fresh | Resume:
    """What rank 0 must have decided, for a rank that cannot ask it."""
    return accepted(decide(root, config, launch_key(os.environ))[1])


def _check_launch_is_named(config: ResumeConfig) -> None:
    """Raises ConfigError for a request that restarts could not recognise as honoured already."""
    if request_of(config).once and shared_by_all_ranks(os.environ) is None:
        raise ConfigError(
            "on several nodes a roll back needs a name of this launch, so that restarts do not roll back again; give "
            "torchrun --rdzv-id NAME, or set MEGATRON_RESUME_LAUNCH_ID"
        )


def begin_or_join(root: Path, config: ResumeConfig, watch: Watch, name: str = "") -> Begun:
    """Join the newest attempt if the place of this role in it is free, else open the next. On rank 0 only.

    Args:
        name: of this start, where an engine gives one to all its processes; else the launcher's counts.

    Raises:
        ResumeError: The start is refused (nothing on disk was changed), or another attempt began meanwhile.
    """
    launch = launch_key(os.environ)
    with naming_the_path(root):
        name = name or shared_by_all_ranks(os.environ) or ""
        lease = Lease(holder=launch, start=name, time_s=config.resume_lease_time)
        return _join(root, config, lease, watch) or _open(root, config, lease, watch)


def _join(root: Path, config: ResumeConfig, lease: Lease, watch: Watch) -> Begun | None:
    """Take the free place of this role in the newest attempt; None when there is none."""
    folder = read_folder(root)
    if not may_join(folder, config, watch.lives):
        return None
    assert config.resume_role is not None
    start = folder.starts[max(folder.starts)]
    try:
        leases.claim(root, start.attempt, config.resume_role, lease)
    except FileExistsError:
        return None  # another process of this role was quicker; opening an attempt will name it
    outcome = outcome_at(root, config, start.parent, requested=False, read=read_point)
    return Begun(outcome, start, {config.resume_role: lease}, joined=True)


def _open(root: Path, config: ResumeConfig, lease: Lease, watch: Watch) -> Begun:
    """Open the next attempt. Readers, and starts at the same time, see it whole or not at all."""
    launch = lease.holder
    folder, outcome = decide(root, config, launch)
    accepted(outcome)  # a refused start leaves no trace
    check_free(folder, config, watch.lives)
    check_links(root)
    number = attempts.take_number(root)
    with _given_back_on_failure(root, number):
        began_meanwhile = attempts.started(root) - set(folder.starts)
        _let_yield(root, began_meanwhile, config, watch)
        # Again: whoever lived until now may have committed, and from here on nobody smaller stays.
        folder, outcome = decide(root, config, launch)
        outcome = accepted(outcome)
        held = dict.fromkeys(roles_here(config), lease)
        for role, lease in held.items():  # before the attempt can be seen, so that it is never seen unheld
            leases.claim(root, number, role, lease)
        crash_point("attempt.held")
        start = _start(number, outcome, folder, config, launch)
        newer = lineage_before(folder, outcome)
        if newer is not None:
            write_untrained(root, number, newer)
        attempts.write_start(root, start)
    with _withdrawn_on_failure(root, number):
        _check_still_newest(root, start)
    return Begun(outcome, start, held, joined=False)


@contextmanager
def _given_back_on_failure(root: Path, number: int) -> Iterator[None]:
    """A start that is refused, or that the storage fails, leaves nothing of an attempt that nobody saw begin."""
    try:
        yield
    except (ResumeError, OSError):
        with suppress(OSError, ResumeError):
            if not attempts.has_started(root, number):
                attempts.give_back(root, number)
        raise


@contextmanager
def _withdrawn_on_failure(root: Path, number: int) -> Iterator[None]:
    try:
        yield
    except (ResumeError, OSError):
        attempts.withdraw(root, number)
        raise


def _check_still_newest(root: Path, start: Start) -> None:
    """Raises RejoinError where a newer attempt began meanwhile, or the point that this one continues from is gone."""
    number = start.attempt
    if attempts.attempt_numbers(root)[-1] > number:
        raise RejoinError(f"attempt {number} began while a newer one did; restart to join it")
    # Only now: retention of another process looks for newer attempts after it took a point away.
    if start.parent is not None and not commit.is_committed(point_path(root, start.parent)):
        raise RejoinError(f"{start.parent} was removed while attempt {number} began; restart to choose again")


def _let_yield(root: Path, others: set[int], config: ResumeConfig, watch: Watch) -> None:
    """Of two starts at once the one with the larger number stays; the others withdraw, if they see it in time.

    Raises:
        HeldError: One of `others` did not: it had looked before this start took its number.
    """
    deadline = time.monotonic() + YIELD_S
    for attempt in sorted(others):
        while attempts.has_started(root, attempt) and not config.take_over:
            holders = [role for role in roles_here(config) if watch.lives(attempt, role)]
            if not holders:
                break
            if time.monotonic() > deadline:
                raise held_by(root, attempt, holders[0])
            time.sleep(_POLL_S)


def follow(root: Path, config: ResumeConfig) -> Fresh | Resume:
    """What rank 0 decided, for the other ranks of a process group with one role.

    Where the launcher names this start alike on all ranks, they wait for a lease that carries this name, of a rank 0
    that lives. Elsewhere each decides alone, and `Session.share_decision` compares.

    Raises:
        RejoinError: Rank 0 did not decide in time.
    """
    name = shared_by_all_ranks(os.environ)
    if name is None:
        return decide_alone(root, config)
    role = roles_here(config)[0]
    found_here = {number: leases.place(root, number, role) for number in attempts.attempt_numbers(root)[-3:]}
    deadline = time.monotonic() + FOLLOW_S
    while time.monotonic() < deadline:
        for number in reversed(attempts.attempt_numbers(root)[-3:]):
            lease = leases.place(root, number, role)
            if not isinstance(lease, Lease) or lease.start != name or not attempts.has_started(root, number):
                continue
            lives = leases.seems_alive(lease)
            # Who typed the same command before may have had the same name: that lease stands still.
            if lives or (lives is None and lease != found_here.get(number)):
                begun = start_of(root, number)
                if begun is None:  # rank 0 withdrew it
                    continue
                asked = begun.requested
                return outcome_at(root, config, begun.parent, requested=asked.begins_anew, start_over=asked.start_over)
        time.sleep(_POLL_S)
    raise RejoinError(f"rank 0 did not begin an attempt in {root} within {FOLLOW_S:.0f} s")


def _start(number: int, outcome: Fresh | Resume, folder: Folder, config: ResumeConfig, launch: Launch) -> Start:
    parent = outcome.point.name if isinstance(outcome, Resume) else None
    ancestry: tuple[int, ...] = ()
    if parent is not None:
        before = folder.starts.get(parent.attempt)
        ancestry = (parent.attempt, *(before.ancestry if before else ()))
    return Start(
        attempt=number,
        nonce=secrets.token_hex(16),
        outcome="resume" if isinstance(outcome, Resume) else "fresh",
        parent=parent,
        ancestry=ancestry,
        requested=request_of(config),
        launch=launch,
        versions=installed_versions(),
        config=role_set.recorded(config),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        lost_iterations=_lost_iterations(folder, parent),
    )


def _lost_iterations(folder: Folder, parent: PointName | None) -> int:
    """How many iterations after the point the newest attempt had run, or others had committed, as far as is known."""
    newest = max(folder.starts, default=0)
    reached = iteration_reached(folder.root, newest) if newest else None
    folder, _ = folder.told()
    committed = next((point.iteration for point in live_line(folder, head(folder)) if folder.is_committed(point)), 0)
    return max(0, max(reached or 0, committed) - (parent.iteration if parent else 0))


def withdraw(root: Path, begun: Begun) -> None:
    """Take an attempt back that was opened for another outcome than the ranks prepared for."""
    if not begun.joined:
        attempts.withdraw(root, begun.start.attempt)
    for role, lease in begun.leases.items():
        leases.release(root, begun.start.attempt, role, lease)


def announce(begun: Begun) -> None:
    """Say what this start does and why: one INFO line, and one for each newer point not used."""
    outcome, joined = begun.outcome, "is joined and " if begun.joined else ""
    if isinstance(outcome, Resume):
        progress = outcome.point.data.progress
        logger.info(
            "attempt %d %sresumes from %s (next episode %d, %d samples consumed, %d iterations to run again): %s",
            begun.start.attempt,
            joined,
            outcome.point.name,
            progress.episode,
            progress.consumed_samples,
            begun.start.lost_iterations,
            outcome.reason,
        )
    else:
        level = logging.WARNING if outcome.requested else logging.INFO
        logger.log(level, "attempt %d %sstarts fresh: %s", begun.start.attempt, joined, outcome.reason)
    for passed in outcome.passed_over:
        logger.info("%s", passed)
