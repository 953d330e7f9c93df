"""Read a data checkpoint folder: which attempts there were, which points, and what is wrong with each."""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ..errors import ConfigError, DamagedError, MismatchError, UnreadableError
from ..roles import TRAINED
from .attempts import attempt_numbers
from .commit import is_at
from .digests import digests_of
from .layout import (
    ABANDONED,
    ARRAYS,
    ATTEMPTS,
    COMMITTED,
    DATA,
    PRUNED,
    START,
    PointName,
    attempt_path,
    model_folder,
    parse_model,
    parse_points,
    point_path,
    receipt_file,
)
from .leases import holders
from .model_files import DigestOf, problem_with_files, sha256_of
from .plain_files import check_plain
from .records import (
    MAX_ARRAYS_BYTES,
    DataCheckpoint,
    Digest,
    Launch,
    Manifest,
    Receipt,
    Start,
    read,
    read_if_there,
    why_unreadable,
)
from .storage import ask, exists, is_folder, is_link, listed, names_in
from .untrained import lineage_of_untrained


class Folder(msgspec.Struct, frozen=True):
    """What lies in one data checkpoint folder: names and starts only, so reading it is cheap."""

    root: Path
    starts: dict[int, Start] = {}
    iterations: dict[int, list[int]] = {}  # of each attempt, those that it began to save
    damaged_starts: dict[int, str] = {}
    unread_starts: dict[int, UnreadableError] = {}  # may be whole
    unread_launches: dict[int, UnreadableError] = {}  # there may be more than `launches` has
    launches: dict[int, list[Launch]] = {}  # of the jobs that opened or joined an attempt
    _committed: dict[PointName, bool] = {}
    _untrained: dict[int, PointName | None] = {}

    def is_committed(self, point: PointName) -> bool:
        """Looked up when first asked, since a folder may hold thousands, and the same ever after.

        Raises:
            UnreadableError: The storage does not say.
        """
        if point not in self._committed:
            # Not as a Path: ten thousand of them take most of the time that a command may take.
            self._committed[point] = exists(f"{self.root}/{point.folder}/{COMMITTED}")
        return self._committed[point]

    def goes_on_at(self, start: Start) -> PointName | None:
        """Where the lineage goes on below the points of an attempt: at its parent, once it has trained.

        Raises:
            DamagedError: What the attempt says of that is damaged.
            UnreadableError: It cannot be read.
        """
        if start.attempt not in self._untrained:
            self._untrained[start.attempt] = lineage_of_untrained(self.root, start.attempt)
        return self._untrained[start.attempt] or start.parent

    def newest_begun(self) -> int | None:
        """The newest attempt that began, also one of which nothing else can be read."""
        return max((*self.starts, *self.unread_starts), default=None)

    def told(self) -> tuple["Folder", list[UnreadableError]]:
        """The same for people, where nothing raises; and what of it cannot be read, which counts as not there."""
        unread = [*self.unread_starts.values(), *self.unread_launches.values()]
        committed, untrained = dict(self._committed), dict(self._untrained)
        for point in self.points:
            try:
                committed[point] = self.is_committed(point)
            except UnreadableError as error:
                committed[point] = False
                unread.append(error)
        for start in self.starts.values():
            try:
                self.goes_on_at(start)
                untrained[start.attempt] = self._untrained[start.attempt]
            except UnreadableError as error:
                untrained[start.attempt] = None
                unread.append(error)
        found: Folder = msgspec.structs.replace(
            self, unread_starts={}, unread_launches={}, _committed=committed, _untrained=untrained
        )
        return found, unread

    def has_commit(self, attempt: int) -> bool:
        """Raises UnreadableError where the storage does not say so of any."""
        unread: UnreadableError | None = None
        for point in self.points_of(attempt):
            try:
                if self.is_committed(point):
                    return True
            except UnreadableError as error:
                unread = unread or error
        if unread is not None:
            raise unread
        return False

    def points_of(self, attempt: int) -> Iterator[PointName]:
        """Committed or not, newest first."""
        return (PointName(i, attempt) for i in sorted(self.iterations.get(attempt, ()), reverse=True))

    def lists(self, point: PointName) -> bool:
        """Whether a folder of this name is there."""
        return point.iteration in self.iterations.get(point.attempt, ())

    @property
    def points(self) -> list[PointName]:
        return sorted(point for attempt in self.iterations for point in self.points_of(attempt))

    @property
    def committed(self) -> list[PointName]:
        return list(filter(self.is_committed, self.points))


class ResumePoint(msgspec.Struct, frozen=True):
    """A committed set, read and found whole."""

    name: PointName
    path: Path
    receipts: dict[str, Receipt]  # one per trained role
    directories: dict[str, Path]  # save folder of each role, where it is now
    models: dict[str, Path]  # model folder of each role, found below its save folder; {} if not looked for
    data: DataCheckpoint

    @property
    def iteration(self) -> int:
        return self.name.iteration


def read_folder(root: Path) -> Folder:
    """Describe `root`, which may be missing (then nothing is in it). Nothing on disk is changed.

    Raises:
        ConfigError: `root` is no folder.
        UnreadableError: It cannot be listed.
    """
    folder = Folder(root)
    if is_link(root / ATTEMPTS):
        raise ConfigError(f"{root / ATTEMPTS} is a symbolic link, by which this job would write elsewhere; remove it")
    try:
        # Attempts first: whoever sees that one continues from a point must see the point, too.
        for number in attempt_numbers(root):
            _read_start(folder, number)
        names = listed(root)
    except FileNotFoundError:
        return Folder(root)
    except OSError as error:
        raise ConfigError(
            f"data_checkpoint_path {str(root)!r} cannot be read: {error.strerror}; "
            "name a folder that every node can read and write"
        ) from error
    folder.iterations.update(parse_points(names))
    return folder


def _read_start(folder: Folder, number: int) -> None:
    try:
        if is_link(attempt_path(folder.root, number)):
            raise DamagedError(f"attempt {number} cannot be read: its folder is a symbolic link")
        start = start_of(folder.root, number)
        if start is None:
            return
        folder.starts[number] = start
        folder.launches[number] = [start.launch]
    except DamagedError as error:
        folder.damaged_starts[number] = str(error)
        return
    except UnreadableError as error:
        folder.unread_starts[number] = error
    try:
        folder.launches.setdefault(number, []).extend(holders(folder.root, number))
    except UnreadableError as error:
        folder.unread_launches[number] = error


def start_of(root: Path, number: int) -> Start | None:
    """How attempt `number` began; None where it died before, or withdrew, as it may do at this moment.

    Raises:
        DamagedError: It cannot be read.
        UnreadableError: The storage does not say.
    """
    path = attempt_path(root, number) / START
    start = read_if_there(path, Start)
    if start is not None and start.attempt != number:
        raise DamagedError(f"{path} belongs to attempt {start.attempt}")
    return start


def read_start(root: Path, number: int) -> Start:
    """The same of one that began, which raises DamagedError where it did not."""
    start = start_of(root, number)
    if start is None:
        raise DamagedError(f"{attempt_path(root, number) / START} is missing")
    return start


def read_point(root: Path, name: PointName, roles: tuple[str, ...]) -> ResumePoint:
    """The committed point `name`, with every file of ours and of its models checked.

    Raises:
        DamagedError: It cannot be resumed from; the message says why.
        UnreadableError: The storage does not say whether it can.
        MismatchError: It never held all of `roles`.
    """
    point = read_own_files(root, name, roles)
    models = {
        role: find_model(point.directories[role], receipt, digests_of(root, receipt))
        for role, receipt in point.receipts.items()
    }
    return msgspec.structs.replace(point, models=models)


def read_own_files(root: Path, name: PointName, roles: tuple[str, ...]) -> ResumePoint:
    """The committed point `name` without a look at its models, which one process of a job checks for all.

    Raises:
        DamagedError: It cannot be resumed from; the message says why.
        UnreadableError: The storage does not say whether it can.
        MismatchError: It never held all of `roles`.
    """
    path = point_path(root, name)
    if is_link(path):
        raise DamagedError(f"{path} is a symbolic link; put the folder itself there")
    if not exists(path / COMMITTED):
        raise DamagedError(_why_uncommitted(path, roles))
    manifest = read(path / COMMITTED, Manifest)
    _check_identity(manifest, name, path / COMMITTED)
    _check_own_files(path, manifest)
    _check_holds(roles, manifest, path / COMMITTED)
    receipts = {role: read(path / receipt_file(role), Receipt) for role in manifest.roles}
    data = read(path / DATA, DataCheckpoint)
    _check_one_moment(path, manifest, receipts, data)
    directories = {role: save_folder(root, receipts[role]) for role in roles}
    return ResumePoint(name, path, {role: receipts[role] for role in roles}, directories, {}, data)


def save_folder(root: Path, receipt: Receipt) -> Path:
    """The role's save folder: beside `root` as it was when saved, so that both may be moved together; or where it was.

    The first of the two that holds such a model, since the storage of one alone may be mounted elsewhere now.

    Raises:
        DamagedError: These are no paths that we would have written.
    """
    if "\0" in receipt.relative + receipt.directory:
        raise DamagedError(
            f"{receipt.role} was saved in {receipt.directory!a}, {receipt.relative!a}: no names of folders"
        )
    if os.path.isabs(receipt.relative):
        raise DamagedError(f"{receipt.role}'s receipt leads to {receipt.relative!a}, which is not relative to {root}")
    if not os.path.isabs(receipt.directory):
        raise DamagedError(f"{receipt.role} was saved in {receipt.directory!a}, which is no absolute path")
    places = [os.path.realpath(root / receipt.relative), receipt.directory]
    holding = (place for place in places if _may_hold(Path(place), receipt.iteration))
    there = (place for place in places if is_folder(place))
    return Path(next(holding, None) or next(there, None) or receipt.directory)


def _may_hold(save: Path, iteration: int) -> bool:
    """Whether a model of that iteration is there, in its place or moved aside; its content is looked at later."""
    name = model_folder(iteration)
    return is_folder(save / name) or bool(moved_aside(save, name))


def find_model(save: Path, receipt: Receipt, digest_of: DigestOf) -> Path:
    """The folder below `save` that holds what was receipted: in its place, or moved aside by a later attempt.

    Args:
        digest_of: knows digests of files that the receipt has none of.

    Raises:
        DamagedError: Neither holds it; the message says what is wrong in its place.
    """
    name = model_folder(receipt.iteration)
    problem = problem_with_files(save / name, receipt.files, digest_of)
    if problem is None:
        return save / name
    for aside in moved_aside(save, name):
        if problem_with_files(aside, receipt.files, digest_of) is None:
            return aside
    raise DamagedError(f"{receipt.role}: {problem}{_where_else(save)}")


def _where_else(save: Path) -> str:
    """What to type where nothing at all was found in `save`, as where a storage is mounted elsewhere, or not at all."""
    if not exists(save):
        link = shlex.join(["ln", "-s", "NEW_PLACE", str(save)])
        return f". If it was moved, or its storage is mounted elsewhere now: mount it there again, or type {link}"
    if any(parse_model(name) is not None for name in names_in(save)):
        return ""
    return f". {save} holds no model at all: is its storage mounted?"


def moved_aside(folder: Path, name: str) -> list[Path]:
    """What attempts moved aside in `folder` that was called `name` there, newest first."""
    aside = folder / ABANDONED
    found = [aside / by / one for by in names_in(aside) for one in names_in(aside / by) if one.startswith(name)]
    return sorted(found, reverse=True)


def _why_uncommitted(path: Path, roles: tuple[str, ...]) -> str:
    files = {role: receipt_file(role) for role in roles} | {"the data": DATA}
    if not exists(path):
        if exists(path.parent / PRUNED / path.name):
            return "retention removed it"
        aside = moved_aside(path.parent, path.name)
        return f"a start over moved it to {aside[0]}" if aside else f"{path} is gone"
    missing = [what for what, file in files.items() if not exists(path / file)]
    if missing:
        return f"it was never committed: {', '.join(missing)} not recorded"
    return "it was never committed, though all of it was saved"


def _check_identity(record: Manifest | Receipt | DataCheckpoint, name: PointName, path: Path) -> None:
    if (record.iteration, record.attempt) != name:
        raise DamagedError(f"{path} belongs to {PointName(record.iteration, record.attempt)}")


def _check_holds(roles: tuple[str, ...], manifest: Manifest, path: Path) -> None:
    missing = [role for role in roles if role not in manifest.roles]
    if any(receipt_file(role) in manifest.files for role in missing):
        raise DamagedError(f"{path} names receipts of {', '.join(missing)}, but not the roles")
    if missing:
        held = ",".join(manifest.roles)
        raise MismatchError(
            f"{PointName(manifest.iteration, manifest.attempt)} holds {held}, and --trained-roles names "
            f"{', '.join(missing)} too; continue with --trained-roles {held}, go back to a point that holds them all "
            "with --load-data-checkpoint-iteration, or begin anew with --start-over"
        )


def _check_own_files(path: Path, manifest: Manifest) -> None:
    _check_names(path, manifest)
    for name, digest in manifest.files.items():
        _check_own_file(path / name, digest)


def _check_names(path: Path, manifest: Manifest) -> None:
    """The manifest names each file of the point, and nothing else."""
    for role in manifest.roles:
        if role not in TRAINED:
            raise DamagedError(f"{path / COMMITTED} names the role {role!a}; {' and '.join(TRAINED)} are trained")
    needed = {DATA, *map(receipt_file, manifest.roles)}
    if needed - manifest.files.keys():
        missing = ", ".join(sorted(needed - manifest.files.keys()))
        raise DamagedError(f"{path / COMMITTED} does not name {missing}")
    for name in manifest.files.keys() - {ARRAYS, DATA, *map(receipt_file, TRAINED)}:
        raise DamagedError(f"{path / COMMITTED} names {name!a}, which is no file of a point")
    if ARRAYS not in manifest.files and exists(path / ARRAYS):
        raise DamagedError(f"{path} holds {ARRAYS}, which {COMMITTED} does not name")


def _check_own_file(file: Path, digest: Digest) -> None:
    limit = MAX_ARRAYS_BYTES if file.name == ARRAYS else DataCheckpoint.max_bytes
    if digest.size > limit:
        raise DamagedError(f"{file} was committed with {digest.size} bytes; none of our records has over {limit}")
    try:
        found = ask(file, file.lstat)
        check_plain(found, file)
        if found.st_size != digest.size or sha256_of(file) != digest.sha256:
            raise DamagedError(f"{file} holds other bytes than were committed")
    except OSError as error:
        raise DamagedError(why_unreadable(file, error)) from error


def _check_one_moment(path: Path, manifest: Manifest, receipts: dict[str, Receipt], data: DataCheckpoint) -> None:
    name = PointName(manifest.iteration, manifest.attempt)
    records: dict[str, Receipt | DataCheckpoint] = {receipt_file(role): r for role, r in receipts.items()}
    for file, record in {DATA: data, **records}.items():
        _check_identity(record, name, path / file)
        if record.nonce != manifest.nonce:
            raise DamagedError(f"{path / file} was written by another life of the job")
    for role, receipt in receipts.items():
        if receipt.role != role:
            raise DamagedError(f"{path / receipt_file(role)} is the receipt of {receipt.role!r}")
        if not is_at(receipt, data.progress):
            raise DamagedError(f"{role} was saved at {receipt.progress}, the data at {data.progress}")
