"""What a start on a folder does: decided from what lies there, with nothing changed. Needs no torch: `explain` asks.

Rank 0 decides; how the other ranks learn of it is in `start`.
"""

from collections.abc import Callable
from pathlib import Path

from ..checkpoint import leases
from ..checkpoint.folder import Folder, ResumePoint, read_folder, read_own_files, read_point
from ..checkpoint.layout import PointName
from ..checkpoint.lives import failed_loads
from ..checkpoint.records import Launch, Request
from ..config import ResumeConfig
from ..errors import ConfigError, DamagedError, HeldError, ResumeError
from ..resume.choose import Fresh, Outcome, Refused, Resume, choose

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


def decide(root: Path, config: ResumeConfig, launch: Launch) -> tuple[Folder, Outcome]:
    """What a start on `root` does now. Changes nothing on disk."""
    folder = read_folder(root)
    return folder, decide_on(folder, config, launch)


def decide_on(folder: Folder, config: ResumeConfig, launch: Launch) -> Outcome:
    """What a start does now on a folder that was read already."""
    roles = config.trained_roles
    return choose(
        folder,
        request_of(config),
        launch,
        lambda name: read_point(folder.root, name, roles),
        failed_loads(folder.root),
    )


def refusal(outcome: Refused) -> ResumeError:
    """The error that ends a refused start, with every point that was passed over."""
    kind = DamagedError if outcome.damaged else ConfigError
    lines = [f"start refused: {outcome.reason}", *(f"  {passed}" for passed in outcome.passed_over)]
    return kind("\n".join(lines))


def accepted(outcome: Outcome) -> Fresh | Resume:
    """`outcome`, or its refusal raised."""
    if isinstance(outcome, Refused):
        raise refusal(outcome)
    return outcome


def outcome_at(
    root: Path, config: ResumeConfig, point: PointName | None, *, requested: bool, read: ReadPoint = read_own_files
) -> Fresh | Resume:
    """The outcome that another process decided on: `point`, or a fresh start."""
    if point is None:
        return Fresh("the other processes of this job began so", requested=requested)
    return Resume(read(root, point, config.trained_roles), "the other processes of this job continue from it")


def may_join(folder: Folder, config: ResumeConfig, lives: Lives) -> bool:
    """Whether the place of this role in the newest attempt is free, and another role's job lives in it."""
    newest = max(folder.starts, default=None)
    if newest is None or config.resume_role is None:
        return False
    taken = [role for role in config.trained_roles if leases.read_lease(folder.root, newest, role)]
    return config.resume_role not in taken and any(lives(newest, role) for role in taken)


def check_free(folder: Folder, config: ResumeConfig, lives: Lives) -> None:
    """Raises HeldError when a living process holds a role of this one in the newest attempt."""
    newest = max(folder.starts, default=None)
    if newest is None or config.take_over:
        return
    for role in roles_here(config):
        if lives(newest, role):
            raise held_by(folder.root, newest, role)


def held_by(root: Path, attempt: int, role: str) -> HeldError:
    lease = leases.read_lease(root, attempt, role)
    who = f"process {lease.holder.pid} on {lease.holder.host}" if lease else "another process"
    return HeldError(
        f"start refused: {role} is held by {who}, attempt {attempt} of {root}; end that process, or, if you know "
        "that it is dead, start with --take-over"
    )
