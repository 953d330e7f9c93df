"""What this process knows about its run: one decision, one attempt, the roles it holds, its progress."""

import hashlib
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ..checkpoint import leftovers, records
from ..checkpoint.arrays import Arrays
from ..checkpoint.arrays import load as load_arrays
from ..checkpoint.layout import ARRAYS
from ..checkpoint.records import read_bytes
from ..config import ResumeConfig, resolve
from ..crash import crash_point
from ..errors import ConfigError, RejoinError
from ..resume.choose import Fresh, Resume
from ..roles import FROZEN
from . import ranks, start
from .lease_keeper import LeaseKeeper
from .tracked import Tracked

logger = logging.getLogger("megatron_resume")


@dataclass(frozen=True)
class Progress:
    """How far the job has come.

    Attributes:
        resume_training: this start continues from a resume point.
        episode: the next episode to run, counted from 0.
        iteration: Megatron's iteration at the resume point; 0 on a fresh start.
        consumed_samples: prompts taken from the data, over all ranks.
        attempt: the number of this life of the job, from 1; 0 where no data checkpoint path was set.
        mid_episode: `episode` has begun; its experience was restored into what `track` was given.
    """

    resume_training: bool = False
    episode: int = 0
    iteration: int = 0
    consumed_samples: int = 0
    attempt: int = 0
    mid_episode: bool = False


@dataclass
class Session:
    """One life of the job in this process."""

    config: ResumeConfig
    root: Path
    outcome: Fresh | Resume
    attempt: int = 0  # rank 0 knows it from the start, the others once torch.distributed is up
    nonce: str = ""  # rank 0 only
    pid: int = field(default_factory=os.getpid)
    agreed: bool = False
    episode: int = 0
    consumed_samples: int = 0
    counts_episodes: bool = False  # False: the script never asks for progress, Megatron counts samples
    steps_in_episode: int = 0  # train steps since the last `advance`
    save_folders: dict[str, str] = field(default_factory=dict)  # trained roles held here -> resolved --save
    loaded: dict[str, int] = field(default_factory=dict)  # trained role -> iteration that was loaded
    lease_keeper: LeaseKeeper | None = None  # on rank 0
    tracked: Tracked = field(default_factory=Tracked)
    arrays: Arrays = field(default_factory=dict)  # of the resume point
    saves: int = 0  # calls of save_checkpoint
    steps: dict[str | None, int] = field(default_factory=dict)  # role -> its calls of train_step

    @property
    def resumes(self) -> Resume | None:
        return self.outcome if isinstance(self.outcome, Resume) else None

    @property
    def owns_data(self) -> bool:
        """Whether progress and tracked state of this process are the job's: it holds the first role."""
        return self.config.trained_roles[0] in self.save_folders

    def progress(self) -> Progress:
        self.counts_episodes = True
        return Progress(
            resume_training=self.resumes is not None,
            episode=self.episode,
            iteration=self.resumes.point.iteration if self.resumes else 0,
            consumed_samples=self.consumed_samples,
            attempt=self.attempt,
            mid_episode=self.counts_episodes and self.steps_in_episode > 0,
        )

    def hold(self, role: str, args: Any) -> None:
        """Note that this process trains `role` with `args`.

        Raises:
            ConfigError: What it saves could never be resumed.
        """
        check_resumable(role, args)
        folder = resolved(args.save)
        for other, taken in self.save_folders.items():
            if other != role and taken == folder:
                raise ConfigError(
                    f"{role} and {other} both save to {folder}, where one would "
                    "overwrite the other; give each its own --save"
                )
        self.save_folders[role] = folder
        if getattr(args, "save_retain_interval", None) is not None:
            self._keep_models(role, args)

    def _keep_models(self, role: str, args: Any) -> None:
        """Megatron would delete this role's model before the other's next one is safe."""
        if not self.config.enable_resume_training:
            logger.warning("%s: --save-retain-interval deletes models of resume points", role)
            return
        logger.warning("%s: --save-retain-interval is switched off, it deletes models of resume points", role)
        args.save_retain_interval = None

    def agree(self) -> None:
        """Make sure that all ranks decided alike, once torch.distributed is up. Call on every rank.

        Raises:
            RejoinError: They did not: a folder of this run was seen in two states.
        """
        if self.agreed or not ranks.connected():
            return
        digest = hashlib.sha256(msgspec.json.encode(start.describe(self.outcome))).digest()
        mine = [int.from_bytes(digest[i : i + 7], "little") for i in range(0, 28, 7)]
        *theirs, attempt = ranks.from_rank_0([*mine, self.attempt])
        if not ranks.everywhere(theirs == mine):
            raise RejoinError("ranks saw different resume points; restarting lets them decide again")
        self.attempt, self.agreed = attempt, True


def resolved(folder: str) -> str:
    """`folder` as every process names it, whatever its working directory and links."""
    return os.path.realpath(folder)


_session: Session | None = None
_begun_in: int | None = None  # process id: a forked child begins nothing


def current() -> Session | None:
    """The session of this process; None before the start, or without a data checkpoint path."""
    return _session if _begun_in == os.getpid() else None


def begin(args: Any) -> Session | None:
    """Decide what this start does, once per process; `args` are Megatron's parsed arguments.

    Raises:
        ResumeError: The start is refused.
    """
    global _session, _begun_in
    if _begun_in == os.getpid():
        return _session
    config = resolve(vars(args), os.environ)
    idle = config.data_checkpoint_path is None or config.resume_role in FROZEN
    _session = None if idle else _begin(config, args)
    _begun_in = os.getpid()
    if _session is None and config.load_data_checkpoint_iteration is not None:
        raise ConfigError("--load-data-checkpoint-iteration needs --data-checkpoint-path DIR")
    return _session


def forget() -> None:
    """Undo `begin`, for `uninstall`."""
    global _session, _begun_in
    if _session is not None and _session.lease_keeper is not None:
        _session.lease_keeper.release()
    _session = _begun_in = None


def _begin(config: ResumeConfig, args: Any) -> Session:
    root = Path(os.path.abspath(str(config.data_checkpoint_path)))
    role = role_of(args, config)
    if role in config.trained_roles:
        check_resumable(role, args)
    _check_saves_everything(args)
    session = _lead(config, root) if ranks.rank() == 0 else _follow(config, root)
    if session.resumes:
        _continue_from(session, session.resumes)
    return session


def _lead(config: ResumeConfig, root: Path) -> Session:
    begun = start.begin_or_join(root, config)
    session = Session(config, root, begun.outcome, attempt=begun.start.attempt, nonce=begun.start.nonce)
    session.lease_keeper = LeaseKeeper(root, session.attempt, begun.leases, config.resume_lease_time)
    if session.resumes and not begun.joined:
        start.clear_save_folders(session.attempt, session.resumes)
    if isinstance(begun.outcome, Fresh) and begun.outcome.start_over and not begun.joined:
        leftovers.move_points_away(root, attempt=session.attempt)
    crash_point("start.end")
    start.announce(begun.outcome, begun)
    return session


def _follow(config: ResumeConfig, root: Path) -> Session:
    outcome, attempt = start.follow(root, config)
    return Session(config, root, outcome, attempt=attempt)


def _continue_from(session: Session, resume: Resume) -> None:
    progress: records.Progress = resume.point.data.progress
    session.episode, session.consumed_samples = progress.episode, progress.consumed_samples
    session.steps_in_episode = int(progress.mid_episode)
    path = resume.point.path / ARRAYS
    if path.exists():
        session.arrays = load_arrays(read_bytes(path), path)


def role_of(args: Any, config: ResumeConfig) -> str | None:
    """The role that `args` are for; None in a process that holds several and named none of them yet."""
    role: str | None = getattr(args, "resume_role", None) or config.resume_role
    if role is None and len(config.trained_roles) == 1:
        return config.trained_roles[0]
    return role


def check_resumable(role: str, args: Any) -> None:
    """Raises ConfigError when what `role` saves with `args` could never be resumed."""
    if not getattr(args, "save", None):
        raise ConfigError(f"{role} has no --save, so nothing of it could ever be resumed; add --save DIR")
    _check_saves_everything(args)


def _check_saves_everything(args: Any) -> None:
    for option, lost in (("no_save_optim", "optimizer and scheduler"), ("no_save_rng", "random states")):
        if getattr(args, option, None):
            flag = "--" + option.replace("_", "-")
            raise ConfigError(
                f"with {flag} the {lost} are not saved, and a resumed run would differ; leave {flag} "
                "out, or leave out --data-checkpoint-path"
            )
