"""What this process knows about its run: one decision, one attempt, the roles it holds, how far it is."""

import functools
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from ..checkpoint import attempts, leftovers
from ..checkpoint.arrays import Arrays
from ..checkpoint.arrays import load as load_arrays
from ..checkpoint.events import events_path
from ..checkpoint.layout import ARRAYS, PointName
from ..checkpoint.leases import Watch
from ..checkpoint.records import MAX_ARRAYS_BYTES, Moment, read_bytes
from ..checkpoint.storage import be_patient, exists
from ..config import ResumeConfig, is_utf8, not_utf8, resolve
from ..crash import crash_point
from ..errors import ConfigError, MismatchError, RejoinError
from ..resume.choose import Fresh, Resume
from ..resume.overrides import Overrides, overrides_for
from ..resume.recorded import Arguments
from ..roles import FROZEN, ROLES, canonical
from ..sources import variable
from ..watch import marks
from . import decision, formats, life, ranks, start
from .lease_keeper import LeaseKeeper
from .lives_before import check_budget_of
from .tracked import Tracked

logger = logging.getLogger("megatron_resume")

_RUN = "megatron_resume.cli.run"  # imported if `run` executes the script


class Progress(msgspec.Struct, frozen=True):
    """How far the job has come.

    Attributes:
        resume_training: this start continues from a resume point.
        episode: the next episode to run, counted from 0.
        iteration: Megatron's iteration at the resume point, or of the checkpoint that was adopted; else 0.
        consumed_samples: prompts taken from the data, over all ranks.
        attempt: the number of this life of the job, from 1; 0 before its first load, save or train step,
            and where no data checkpoint path was set.
        mid_episode: `episode` has begun; its experience was restored into what `track` was given.
    """

    resume_training: bool = False
    episode: int = 0
    iteration: int = 0
    consumed_samples: int = 0
    attempt: int = 0
    mid_episode: bool = False


def _no_commits() -> None:
    """Until the first save there is nothing to wait for."""


class Session(msgspec.Struct):
    """One life of the job in this process."""

    config: ResumeConfig
    root: Path
    name: str = ""  # of this start, on all its processes, where an engine gives one
    data_elsewhere: bool = False  # a process without models owns the data
    _outcome: Fresh | Resume | None = None  # None on a rank that rank 0 has yet to tell
    attempt: int = 0  # 0 until it is open
    nonce: str = ""  # rank 0 only
    is_open: bool = False  # the attempt has begun, and every rank knows it
    episode: int = 0
    consumed_samples: int = 0
    counts_episodes: bool = False  # False: the script never asks for progress, Megatron counts samples
    steps_in_episode: int = 0  # steps of schedulers since the last `advance`
    is_in_train_step: bool = False  # Megatron's
    is_loading: bool = False  # inside Megatron's load_checkpoint
    has_trained: bool = False  # on rank 0: the first step is done, and told
    role_of_command: str | None = None  # the trained one that this process is for, so that --save is of it
    save_folders: dict[str, str] = {}  # trained roles held here -> resolved --save
    fenced: set[str] = set()  # trained roles whose save folder has this attempt's own name
    last_in_folder: dict[str, int] = {}  # trained role -> last iteration in its save folder before the first save
    frozen_sources: dict[str, str] = {}  # resolved --load -> frozen role
    arguments: dict[str, Arguments] = {}  # of trained roles, as they were first seen
    given: dict[str, dict[str, object]] = {}  # trained role -> what its arguments were before they were overridden
    loaded: dict[str, int] = {}  # trained role -> iteration that was loaded
    watch: Watch | None = None  # on rank 0
    lease_keeper: LeaseKeeper | None = None  # on rank 0, once open
    tracked: Tracked = msgspec.field(default_factory=Tracked)
    arrays: Arrays = {}  # of the resume point
    saves: int = 0  # calls of save_checkpoint
    iteration: int = 0  # that training has come to: of the last save, and the train steps of the first role since
    steps: dict[str | None, int] = {}  # role -> its calls of train_step
    trained: int = 0  # counts up whenever anything was trained
    saved_at: dict[str, tuple[int, int]] = {}  # role -> iteration of its last save, and `trained` then
    wait_for_commits: Callable[[], None] = _no_commits

    @property
    def outcome(self) -> Fresh | Resume:
        """What this start does. A rank that asks before torch.distributed is up decides for itself."""
        if self._outcome is None:
            self.adopt(start.decide_alone(self.root, self.config))
        assert self._outcome is not None
        return self._outcome

    @property
    def resumes(self) -> Resume | None:
        return self.outcome if isinstance(self.outcome, Resume) else None

    @property
    def evaluates(self) -> bool:
        """Whether nothing is to be trained or saved here."""
        return False

    def overrides(self, role: str) -> Overrides:
        """Megatron arguments to change so that `role` is loaded from the resume point; none on a fresh start."""
        return overrides_for(role, self.resumes.point) if self.resumes else {}

    @property
    def owns_data(self) -> bool:
        """Whether progress and tracked state of this process are the job's: it holds the first role."""
        return not self.data_elsewhere and any(role in self.save_folders for role in self.config.trained_roles[:1])

    @property
    def may_adopt(self) -> bool:
        """Whether a load of this start is of a checkpoint from before this job had resume points.

        Not where an engine or the person says what to load; that may have been asked of this process alone.
        """
        if self.data_elsewhere or self.evaluates or decision.request_of(self.config).begins_anew:
            return False
        return isinstance(self.outcome, Fresh) and not self.outcome.requested

    @property
    def starts_over(self) -> bool:
        """Whether what this job saved before is to be as if it were not there."""
        return isinstance(self.outcome, Fresh) and self.outcome.start_over and not self.evaluates

    @property
    def adopted(self) -> dict[str, int]:
        """Trained role -> iteration of Megatron's own that this fresh start continues from; {} if there is none."""
        loaded = {role: iteration for role, iteration in self.loaded.items() if iteration}
        return loaded if loaded and self.may_adopt else {}

    def adopt(self, outcome: Fresh | Resume) -> None:
        """Continue as `outcome` says.

        Raises:
            DamagedError: The arrays of the point are damaged.
        """
        if isinstance(outcome, Resume):
            moment: Moment = outcome.point.data.progress
            self.episode, self.consumed_samples = moment.episode, moment.consumed_samples
            self.steps_in_episode = int(moment.mid_episode)
            self.iteration = outcome.point.iteration
            marks.is_at_iteration(self.iteration)
            path = outcome.point.path / ARRAYS
            if exists(path):
                self.arrays = load_arrays(read_bytes(path, MAX_ARRAYS_BYTES), path)
        self._outcome = outcome

    def progress(self) -> Progress:
        self.counts_episodes = True
        return Progress(
            resume_training=self.resumes is not None,
            episode=self.episode,
            iteration=self.resumes.point.iteration if self.resumes else max(self.adopted.values(), default=0),
            consumed_samples=self.consumed_samples,
            attempt=self.attempt,
            mid_episode=self.steps_in_episode > 0,
        )

    def hold(self, role: str, args: Any) -> None:
        """Note that this process trains `role` with `args`.

        Raises:
            ResumeError: What it saves could never be resumed, or is not where the resume point has it.
        """
        check_resumable(role, args)
        folder = resolved(args.save)
        for other, taken in self.save_folders.items():
            if other != role and taken == folder:
                raise ConfigError(
                    f"{role} and {other} both save to {folder}, where one would overwrite the other; give each its "
                    "own --save"
                )
        if role == self.role_of_command and self.save_folders.get(role, folder) != folder:
            raise ConfigError(
                f"{role} is to be saved in {folder}, but --save said {self.save_folders[role]}, where the next start "
                f"would look for it: give --save {folder}, and let the script leave args.save alone"
            )
        saved_in = resolved(str(self.resumes.point.directories[role])) if self.resumes else folder
        if folder != saved_in:
            raise MismatchError(
                f"{role} was saved in {saved_in}, but its --save is {args.save}; continue with --save {saved_in}"
            )
        if folder in self.frozen_sources:
            raise ConfigError(
                f"{role} saves to {folder}, from where {self.frozen_sources[folder]} is loaded: after a resume it "
                "would be the trained weights; give one of them another folder"
            )
        self.save_folders[role] = folder
        self.keep_models(role, args)

    def keep_models(self, role: str, args: Any) -> None:
        """Megatron would delete this role's model before the other's next one is safe."""
        if getattr(args, "save_retain_interval", None) is None:
            return
        if not self.config.enable_resume_training:
            logger.warning("%s: --save-retain-interval deletes models of resume points", role)
            return
        logger.warning("%s: --save-retain-interval is switched off, it deletes models of resume points", role)
        args.save_retain_interval = None

    def share_decision(self) -> None:
        """Tell the other ranks what rank 0 decided, once torch.distributed is up. Call on every rank.

        Raises:
            RejoinError: A rank had decided otherwise: it saw the folder in another state.
        """
        if self.is_open or not ranks.connected():
            return
        *theirs, roles = ranks.from_rank_0([*_numbers(self._outcome), self._roles_as_number()])
        have_same_roles = ranks.everywhere(roles == self._roles_as_number())
        if have_same_roles and self._outcome is None:
            point = PointName(theirs[1], theirs[2]) if theirs[0] else None
            self.adopt(decision.outcome_at(self.root, self.config, point, requested=bool(theirs[3])))
        if not have_same_roles or not ranks.everywhere(theirs == _numbers(self._outcome)):
            raise RejoinError("ranks saw different resume points; restarting lets them decide again")

    def _roles_as_number(self) -> int:
        return sum(1 << ROLES.index(role) for role in self.config.trained_roles)

    def open(self) -> None:
        """Begin the attempt, at the first load, save or train step. Call on every rank.

        Nothing on disk was changed before. Raises ResumeError when somebody else began meanwhile.
        """
        if self.is_open:
            return
        self.share_decision()
        if ranks.rank() == 0:
            self.open_on_rank_0()
        self.attempt = ranks.from_rank_0([self.attempt])[0]
        marks.is_in_attempt(self.attempt)
        self.is_open = True

    def open_on_rank_0(self) -> None:
        """What `open` does on rank 0; once."""
        if self.lease_keeper is not None:
            return
        assert self.watch is not None
        begun = start.begin_or_join(self.root, self.config, self.watch, self.name)
        if _numbers(begun.outcome) != _numbers(self.outcome):
            start.withdraw(self.root, begun)
            raise RejoinError("another resume point was committed while this start was under way; restart to take it")
        self.attempt, self.nonce = begun.start.attempt, begun.start.nonce
        marks.is_in_attempt(self.attempt)
        self.lease_keeper = LeaseKeeper(
            self.root, self.attempt, begun.leases, self.config.resume_lease_time, lambda: self.iteration
        )
        life.begin(events_path(self.root, self.attempt, decision.roles_here(self.config)[0]))
        if isinstance(begun.outcome, Fresh) and begun.outcome.start_over and not begun.joined:
            leftovers.move_points_away(self.root, attempt=self.attempt)
        crash_point("start.end")
        start.announce(begun)

    def step_back(self) -> None:
        """After a refusal before any training: the attempt has not begun, and a roll back was not honoured."""
        if self.steps or self.saves:
            return
        marks.is_in_attempt(0)  # on every rank: none of them failed in it
        if self.lease_keeper is not None:
            life.forget()
            self.lease_keeper.release()
            attempts.withdraw(self.root, self.attempt)


def _numbers(outcome: Fresh | Resume | None) -> list[int]:
    """A decision as the ranks compare it."""
    if isinstance(outcome, Resume):
        return [1, *outcome.point.name, 0]
    return [0, 0, 0, int(outcome.requested) if outcome else 0]


@functools.cache  # every save asks, and the attempt's own name leads to where it led at first
def resolved(folder: str) -> str:
    """`folder` as every process names it, whatever its working directory and links."""
    return os.path.realpath(folder)


_session: Session | None = None
_begun_in: int | None = None  # process id: a forked child begins nothing


def current() -> Session | None:
    """The session of this process; None before the start, or without a data checkpoint path."""
    return _session if _begun_in == os.getpid() else None


def has_begun() -> bool:
    """Whether Megatron parsed its arguments in this process, so that it is known whether there is a session."""
    return _begun_in is not None


def begin(args: Any, make: Callable[[ResumeConfig, Any], Session] | None = None) -> Session | None:
    """Decide what this start does, once per process; `args` are Megatron's parsed arguments.

    Args:
        make: the session, of what the job asked for; if not given, that of a process that trains.

    Raises:
        ResumeError: The start is refused; nothing on disk was changed.
    """
    global _session, _begun_in
    if _begun_in is not None:
        return current()
    config = resolve(vars(args), os.environ)
    if config.data_checkpoint_path is None and decision.request_of(config).once:
        raise ConfigError("to choose a resume point, --data-checkpoint-path DIR is needed too")
    idle = config.data_checkpoint_path is None or config.resume_role in FROZEN
    if config.data_checkpoint_path is None and _RUN in sys.modules and ranks.rank() == 0:
        logger.warning(
            "nothing of this run can be resumed: --data-checkpoint-path was not given. Add it (or set %s); or start "
            "the script without `megatron-resume run`",
            variable("data_checkpoint_path"),
        )
    be_patient(config.resume_read_timeout)
    session = None if idle else (make or _begin)(config, args)
    _session, _begun_in = session, os.getpid()
    return session


def stand_by() -> None:
    """Let nothing begin by Megatron's arguments in this process: an engine says when, with `begin_told`, or never."""
    global _begun_in
    if _session is None:
        _begun_in = os.getpid()


def begin_told(config: ResumeConfig, name: str) -> Session:
    """Begin with one trained role, as an engine says; its data lies with another process. Call on every rank.

    Unlike `begin`, rank 0 decides and the others are told when they `open`; the role is held from its load on, since
    engines choose its save folder late.

    Raises:
        ResumeError: The start is refused; nothing on disk was changed.
    """
    global _session, _begun_in
    be_patient(config.resume_read_timeout)
    session = Session(config, Path(os.path.abspath(str(config.data_checkpoint_path))), name, data_elsewhere=True)
    if ranks.rank() == 0:
        session.watch = start.watch(session.root, config)
        session.adopt(start.decide_on_rank_0(session.root, config, session.watch))
        _tell_of_relative_path(config, session)
    _session, _begun_in = session, os.getpid()
    return session


def forget() -> None:
    """Undo `begin`, for `uninstall`."""
    global _session, _begun_in
    life.forget()
    if _session is not None and _session.lease_keeper is not None:
        _session.lease_keeper.release()
    _session = _begun_in = None


def _begin(config: ResumeConfig, args: Any) -> Session:
    root = Path(os.path.abspath(str(config.data_checkpoint_path)))
    config = decision.with_roles_of_job(root, config)
    role = role_of(args, config)
    check_resumable(role, args)
    marks.knows_root(root)
    check_budget_of(config, os.environ)
    session = Session(config, root)
    one_role = session.role_of_command = role if role in config.trained_roles else None
    if ranks.rank() == 0:
        session.watch = start.watch(root, config)
        session.adopt(start.decide_on_rank_0(root, config, session.watch))
        _tell_of_relative_path(config, session)
        if one_role is not None:
            session.hold(one_role, args)
    elif one_role is not None:
        session.adopt(start.follow(root, config))
    return session


def _tell_of_relative_path(config: ResumeConfig, session: Session) -> None:
    """A job that is started in another folder would find nothing there, and begin anew."""
    path = str(config.data_checkpoint_path)
    if isinstance(session.outcome, Fresh) and not session.outcome.requested and not os.path.isabs(path):
        logger.warning(
            "--data-checkpoint-path %s is relative, and means %s here: a start in another working directory looks "
            "elsewhere. If this job has resume points, give the whole path of their folder",
            path,
            session.root,
        )


def role_of(args: Any, config: ResumeConfig) -> str | None:
    """The role that `args` are for; None in a process that holds several and named none of them yet."""
    given = getattr(args, "resume_role", None)
    return canonical(given) if given else config.resume_role


def check_may_train(session: Session, role: str | None) -> None:
    """Raises ConfigError when what is trained or saved now is of no known role, was not resumed, or is evaluated."""
    roles = session.config.trained_roles
    if session.evaluates and role not in FROZEN:
        raise ConfigError(
            f"{role or 'a model'} is trained or saved here, but --skip-train was typed, so this process holds no "
            "attempt of the job: leave out --skip-train; or save a copy elsewhere than in the job's --save"
        )
    if role is None:
        raise ConfigError(
            "Megatron trains or saves, and get_args() names no role; call set_args() with what "
            f"megatron_resume.role_args(role, args) gave, or start with --resume-role (trained: {', '.join(roles)})"
        )
    if session.resumes and role in roles and role not in session.loaded:
        raise ConfigError(
            f"{role} trains, but was never loaded from {session.resumes.point.name}: it would start from other "
            "weights. Call Megatron's load_checkpoint (setup_model_and_optimizer does) with the arguments of "
            f"role_args({role!r}, args)"
        )
    for other, iteration in session.adopted.items():
        if role in roles and session.loaded.get(role or "", 0) != iteration:
            raise MismatchError(
                f"{role} trains from its beginning, and {other} was loaded at iteration {iteration}: no resume point "
                f"can hold both. Load {role} of iteration {iteration}, too; or load {other} with --finetune, if it "
                "only starts from there"
            )


def check_resumable(role: str | None, args: Any) -> None:
    """Raises ConfigError when what is saved with `args` could never be resumed; `role` may not be known yet."""
    if role is not None and not getattr(args, "save", None):
        raise ConfigError(f"{role} has no --save, so nothing of it could ever be resumed; add --save DIR")
    if role is not None and ("://" in args.save or not is_utf8(args.save)):
        why = "" if "://" in args.save else f", a name that is {not_utf8()}"
        raise ConfigError(
            f"{role} saves to {args.save!a}{why}; resume points need a POSIX folder with "
            "a UTF-8 name, shared by all nodes: change --save, or leave out --data-checkpoint-path"
        )
    for option, lost in (("no_save_optim", "optimizer and scheduler"), ("no_save_rng", "random states")):
        if getattr(args, option, None):
            flag = "--" + option.replace("_", "-")
            raise ConfigError(
                f"with {flag} the {lost} are not saved, and a resumed run would differ; leave {flag} out, or leave "
                "out --data-checkpoint-path"
            )
    if getattr(args, "inprocess_restart", None):
        raise ConfigError(
            "--inprocess-restart trains again in a process that trained before, from weights that nobody checked; "
            "leave it out and let a launcher restart the process (megatron-resume launch, torchrun --max-restarts), or "
            "leave out --data-checkpoint-path"
        )
    formats.check(args)
