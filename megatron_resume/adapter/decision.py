"""What a start on a folder does: decided from what lies there, with nothing changed. Needs no torch: `explain` asks.

Rank 0 decides; how the other ranks learn of it is in `start`.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path

from ..checkpoint import leases
from ..checkpoint.folder import Folder, ResumePoint, read_folder, read_own_files, read_point
from ..checkpoint.launch_key import launch_key
from ..checkpoint.layout import PointName
from ..checkpoint.lives import failed_loads
from ..checkpoint.records import Launch, Request
from ..config import ResumeConfig
from ..errors import ConfigError, HeldError, RejoinError, ResumeError, UnreadableError
from ..resume import role_set
from ..resume.choose import Fresh, Outcome, Refused, Resume, choose, continued, refused_unread
from ..roles import TRAINED

ReadPoint = Callable[[Path, PointName, tuple[str, ...]], ResumePoint]
Lives = Callable[[int, str], bool]  # whether somebody who lives holds a role of an attempt


def request_of(config: ResumeConfig) -> Request:
    return Request(
        iteration=config.load_data_checkpoint_iteration,
        attempt=config.load_data_checkpoint_attempt,
        start_over=config.start_over,
        fresh=not config.enable_resume_training,
    )


def roles_here(config: ResumeConfig) -> tuple[str, ...]:
    """The trained roles whose place this process takes: its one, or all where it may hold several."""
    return (config.resume_role,) if config.resume_role else config.trained_roles


def with_roles_of_job(root: Path, config: ResumeConfig) -> ResumeConfig:
    """`config`, which may name no trained roles, with those of the points that a start on `root` continues from."""
    if config.trained_roles:
        return config
    folder = read_folder(root)
    try:
        start = continued(folder, request_of(config), launch_key(os.environ))
    except UnreadableError as error:
        raise refusal(refused_unread(folder, error)) from error
    return role_set.with_roles_of(start, config)


def decide(root: Path, config: ResumeConfig, launch: Launch) -> tuple[Folder, Outcome]:
    """What a start on `root` does now. Changes nothing on disk."""
    folder = read_folder(root)
    return folder, decide_on(folder, config, launch)


def decide_on(folder: Folder, config: ResumeConfig, launch: Launch) -> Outcome:
    """What a start does now on a folder that was read already."""
    request = request_of(config)
    try:
        before = continued(folder, request, launch)
    except UnreadableError as error:
        return refused_unread(folder, error)
    change = role_set.refused_change(before, config, request)
    if change is not None:
        return Refused(change)
    roles = config.trained_roles or (role_set.roles_of(before) if before else TRAINED)
    return choose(
        folder,
        request,
        launch,
        lambda name: read_point(folder.root, name, roles),
        failed_loads(folder.root),
    )


def refusal(outcome: Refused) -> ResumeError:
    """The error that ends a refused start, with every point that was passed over."""
    passed = "".join(f"\n  {passed}" for passed in outcome.passed_over)
    unread = outcome.unread
    if unread is not None:
        return type(unread)(f"start refused: {unread.what}", unread.way_back, passed)
    return outcome.error(f"start refused: {outcome.reason}{passed}")


def accepted(outcome: Outcome) -> Fresh | Resume:
    """`outcome`, or its refusal raised."""
    if isinstance(outcome, Refused):
        raise refusal(outcome)
    return outcome


def outcome_at(
    root: Path,
    config: ResumeConfig,
    point: PointName | None,
    *,
    requested: bool,
    start_over: bool = False,
    read: ReadPoint = read_own_files,
) -> Fresh | Resume:
    """The outcome that another process decided on: `point`, or a fresh start."""
    if point is None:
        return Fresh("the other processes of this job began so", requested=requested, start_over=start_over)
    return Resume(read(root, point, config.trained_roles), "the other processes of this job continue from it")


def may_join(folder: Folder, config: ResumeConfig, lives: Lives) -> bool:
    """Whether the place of this role in the newest attempt is free, and another role's job lives in it."""
    newest = folder.newest_begun()
    if newest not in folder.starts or config.resume_role is None:
        return False
    if not role_set.are_of(folder.starts[newest], config.trained_roles):
        return False
    taken = [role for role in config.trained_roles if leases.place(folder.root, newest, role)]
    return config.resume_role not in taken and any(lives(newest, role) for role in taken)


def check_free(folder: Folder, config: ResumeConfig, lives: Lives) -> None:
    """Look who lives in the newest attempt.

    Raises:
        HeldError: A living process holds a role of this one there.
        ConfigError: One trains there, for another set of roles: its points and those of this start would be halves.
    """
    newest = folder.newest_begun()
    if newest is None or config.take_over:
        return
    start = folder.starts.get(newest)
    theirs = role_set.roles_of(start) if start else TRAINED
    for role in roles_here(config) or theirs:
        if lives(newest, role):
            raise held_by(folder.root, newest, role)
    if start is None or role_set.are_of(start, config.trained_roles):
        return
    if any(lives(newest, role) for role in theirs):
        raise ConfigError(role_set.refused_beside(start, config, folder.root))


def held_by(root: Path, attempt: int, role: str) -> ResumeError:
    """The error of a start where somebody holds `role`, or nobody can tell whether somebody does."""
    found = leases.place(root, attempt, role)
    if isinstance(found, leases.Unreadable):
        kind = HeldError if found.errno in (errno.EACCES, errno.EPERM, errno.ELOOP, errno.EINVAL) else RejoinError
        return kind(
            f"start refused: nobody can tell who holds {role} in attempt {attempt} of {root}: {found.why}. Make it "
            "readable; or, if you know that no process of the job lives, start with --take-over"
        )
    who = f"process {found.holder.pid} on {found.holder.host}" if isinstance(found, leases.Lease) else "another process"
    return HeldError(
        f"start refused: {role} is held by {who}, attempt {attempt} of {root}; end that process, or, if you know "
        "that it is dead, start with --take-over"
    )
