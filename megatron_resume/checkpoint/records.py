"""The records that are stored as JSON, and how they are read without trusting them."""

import errno
import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec

from ..errors import ConfigError, DamagedError
from ..shown import shown_in_line
from .contents import Contents
from .layout import PointName
from .nesting import is_deeper
from .plain_files import NotPlainError, open_plain
from .storage import ask, exists

VERSION = 1
Unknown = msgspec.UnsetType  # a field that an import could not fill: not in the file, and compared with nothing
MAX_NESTING = 100  # of lists and dicts in a field that may hold anything
MAX_ARRAYS_BYTES = 64 << 30  # tracked arrays of one point
MAX_NUMBER = 1 << 53  # what every reader of JSON can tell apart


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all records: `version` tells readers whether they understand the rest."""

    max_bytes: ClassVar[int] = 1 << 20  # what is larger was not written by us
    anything: ClassVar[tuple[str, ...]] = ()  # fields that may hold any plain values

    version: int = VERSION


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """Which process of which launch this is."""

    job: str  # the same for all processes and all restarts of one launch
    restart: int
    counts: bool  # whether the launcher counts restarts; else an equal `job` is all there is to go by
    host: str
    pid: int
    boot: str  # machine, boot and process name space in which `pid` counts
    started: str  # ticks from boot to the start of `pid`, which may be given to another process later


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What the person who started the job asked for."""

    iteration: int | None = None  # roll back to the point of this iteration
    attempt: int | None = None  # continue the line of this attempt, abandoned or not
    start_over: bool = False  # begin anew, with the old run moved aside
    fresh: bool = False  # resuming is switched off

    @property
    def once(self) -> bool:
        """Whether it is to be honoured once per launch: restarts then go on from where it led."""
        return self.iteration is not None or self.attempt is not None or self.start_over

    @property
    def begins_anew(self) -> bool:
        return self.start_over or self.fresh


class Start(Record, frozen=True, kw_only=True):
    """How an attempt began: `attempts/<n>/start.json`."""

    anything: ClassVar[tuple[str, ...]] = ("config",)

    attempt: int
    nonce: str  # ties receipts to this life of the job
    outcome: str  # "fresh" or "resume"
    parent: PointName | None  # the point that this attempt continues from
    ancestry: tuple[int, ...]  # attempts from the parent's back to the first
    requested: Request
    launch: Launch
    versions: dict[str, str]
    config: dict[str, Any]
    created: str  # ISO 8601, UTC; for people, never compared
    lost_iterations: int = 0  # that the attempt before ran beyond the point, as of its last sign of life


class ModelFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a model checkpoint; `path` is relative to its folder."""

    path: str
    size: int  # bytes
    mtime_ns: int
    inode: int
    sha256: str | None  # None for a file too large to be read again at every save


Count = Annotated[int, msgspec.Meta(ge=0, lt=MAX_NUMBER)]


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """How far the data had been used when `save_checkpoint` was called."""

    episode: Count  # episodes that are done, so also the next one to run (counted from 0)
    consumed_samples: Count  # prompts, over all ranks
    mid_episode: bool = False  # True: `episode` has begun, and its experience is in the tracked state


class Receipt(Record, frozen=True, kw_only=True):
    """One role's statement that its model checkpoint is complete and durable."""

    max_bytes: ClassVar[int] = 64 << 20  # some 300,000 files
    anything: ClassVar[tuple[str, ...]] = ("arguments",)

    role: str
    iteration: int
    attempt: int
    nonce: str
    directory: str  # the role's save folder, as an absolute path
    relative: str  # the same, seen from data_checkpoint_path: survives moving both
    format: str  # Megatron's ckpt_format
    files: tuple[ModelFile, ...]
    progress: Moment | Unknown = msgspec.UNSET  # not known where another process than the role's owns the data
    consumed_train_samples: int | Unknown = msgspec.UNSET  # Megatron's own counter
    scheduler_steps: int | Unknown | None = msgspec.UNSET  # of the schedule, in samples; None when there is none
    versions: dict[str, str] | Unknown = msgspec.UNSET
    arguments: dict[str, Any] | Unknown = msgspec.UNSET  # Megatron's and the script's own, at the role's start
    tensors: Contents | Unknown = msgspec.UNSET  # what the state dicts of all ranks held


class ModelDigests(Record, frozen=True, kw_only=True):
    """Digests of a role's model files that its receipt has none of, computed after the commit."""

    role: str
    iteration: int
    attempt: int
    nonce: str  # of the receipt
    files: tuple[ModelFile, ...]  # as the receipt names them, each with its digest


class Rng(msgspec.Struct, frozen=True, kw_only=True):
    """Random states of every rank; ranks with equal states share one array `rng/<n>`."""

    state_of_rank: tuple[int, ...]
    layout: dict[str, int]  # parallel sizes: another layout cannot take these states


class DataCheckpoint(Record, frozen=True, kw_only=True):
    """Moment and data state, captured when `save_checkpoint` was called."""

    max_bytes: ClassVar[int] = 64 << 20  # arrays and tensors are stored beside it
    anything: ClassVar[tuple[str, ...]] = ("tracked", "fingerprints")

    iteration: int
    attempt: int
    nonce: str
    progress: Moment
    tracked: dict[str, Any] | Unknown = msgspec.UNSET
    rng: Rng | None
    fingerprints: dict[str, Any]


class Digest(msgspec.Struct, frozen=True, kw_only=True):
    """Size in bytes and SHA-256 of one of our own files."""

    size: int
    sha256: str


class Manifest(Record, frozen=True, kw_only=True):
    """`COMMITTED`: every file of the point, all roles of one attempt and one moment."""

    iteration: int
    attempt: int
    nonce: str
    roles: tuple[str, ...]
    files: dict[str, Digest]


R = TypeVar("R", bound=Record)


def encode(record: Record) -> bytes:
    """`record` as JSON that a person can read.

    Raises:
        ConfigError: No reader would take it.
    """
    data = msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"
    problem = _problem_with_size(len(data), type(record)) or _problem_with_nesting(record)
    if problem:
        raise ConfigError(f"{type(record).__name__} cannot be stored: {problem}; track or pass less")
    return data


def decode(data: bytes, kind: type[R], what: object) -> R:
    """The record in `data`; `what` names it in the error.

    Raises:
        DamagedError: It is no JSON, another version, or lacks a field.
    """
    try:
        version = msgspec.json.decode(data, type=_Versioned).version
        if version != VERSION:
            raise DamagedError(f"{what} has version {version}; this release reads version {VERSION}")
        record = msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedError(f"{what} is damaged: {shown_in_line(str(error))}") from error
    problem = _problem_with_nesting(record)
    if problem:
        raise DamagedError(f"{what} is damaged: {problem}")
    return record


def _problem_with_nesting(record: Record) -> str | None:
    """Deeper values would end whoever compares or restores them."""
    deep = [field for field in record.anything if is_deeper(getattr(record, field), MAX_NESTING)]
    return f"{', '.join(deep)} is nested more than {MAX_NESTING} deep" if deep else None


def _problem_with_size(size: int, kind: type[Record]) -> str | None:
    return f"it takes {size} bytes, {kind.max_bytes} are allowed" if size > kind.max_bytes else None


class _Versioned(msgspec.Struct):
    version: int


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a plain file, of at most `limit` bytes.

    Raises:
        DamagedError: It is missing, a link, no file or absurdly large.
        UnreadableError: The storage does not say what it is.
    """
    try:
        return ask(path, lambda: _bytes_of(path, limit))
    except (OSError, ValueError) as error:
        raise DamagedError(why_unreadable(path, error)) from error


def _bytes_of(path: Path, limit: int) -> bytes:
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise DamagedError(f"{path} has {size} bytes; none of our records has over {limit}")
        return file.read(size)


def why_unreadable(path: Path, error: OSError | ValueError) -> str:
    """What to say where `open_plain` failed, or reading what it opened."""
    if isinstance(error, FileNotFoundError):
        return f"{path} is missing"
    if isinstance(error, NotPlainError):
        return f"{path} is not a file"
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return f"{path} is a symbolic link; only plain files are read"
    return f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"


def read(path: Path, kind: type[R]) -> R:
    """The record in the file `path`. Raises as `read_bytes` and `decode` do."""
    return decode(read_bytes(path, kind.max_bytes), kind, path)


def read_if_there(path: Path, kind: type[R]) -> R | None:
    """The same; None where nothing is there, or somebody takes it away at this moment."""
    if not exists(path):
        return None
    try:
        return read(path, kind)
    except DamagedError:
        if exists(path):
            raise
        return None
