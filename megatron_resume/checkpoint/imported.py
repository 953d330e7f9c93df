"""The first point of a job that another project began: its models stay where they are, what is unknown stays so."""

import json
import os
import secrets
import shlex
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..config import is_utf8, not_utf8
from ..errors import ConfigError, DamagedError, MismatchError
from . import commit, storage
from .attempts import attempt_numbers, give_back, take_number, write_start
from .events import Committed, Finished, append, events_path
from .folder import read_folder
from .launch_key import launch_key
from .layout import PointName, model_folder
from .links import check_links
from .model_files import problem_with_files, record_files
from .records import DataCheckpoint, ModelFile, Moment, Receipt, Request, Start, read_bytes

FORMATS = ("torch_dist", "torch")
MAX_METADATA_BYTES = 1 << 20


def import_point(
    root: Path, models: Mapping[str, Path], iteration: int, moment: Moment, *, source: Mapping[str, Any]
) -> PointName:
    """Commit the models of `iteration` and `moment` as the first point of `root`; they must not change meanwhile.

    `COMMITTED` is written last, so whoever dies on the way leaves no point.

    Args:
        models: save folder of each trained role.
        source: what `start.json` keeps of where all this comes from.

    Raises:
        ConfigError: `root` holds attempts or points, lies within a model's folder, or cannot be written.
        DamagedError: A model's folder is no whole checkpoint of plain files.
        MismatchError: Megatron could not load its format.
    """
    check_free(root, models)
    folders = {role: Path(os.path.realpath(save)) for role, save in models.items()}
    parts = {role: _recorded(save / model_folder(iteration)) for role, save in folders.items()}
    try:
        name = PointName(iteration, _first_attempt(root))
        _write(root, name, folders, parts, moment, source)
        return name
    except OSError as error:
        where = error.filename2 or error.filename or root
        raise ConfigError(f"{where}: {error.strerror}; name a folder with --to that all nodes can write") from error


def check_free(root: Path, models: Mapping[str, Path]) -> None:
    """Raises ConfigError unless a new job can begin in `root`, apart from its models, each in a folder of its own."""
    found = read_folder(root)
    if found.committed:
        raise ConfigError(f"{root} holds resume points of a job already; name a new folder with --to")
    if found.points or attempt_numbers(root):
        raise ConfigError(
            f"{root} holds attempts that committed nothing; remove it where it is of an import that was cut short "
            f"(rm -r {shlex.quote(str(root))}), or name a new folder with --to"
        )
    taken: dict[str, str] = {}
    for role, save in models.items():
        path = os.path.realpath(save)
        if path in taken:
            raise ConfigError(f"{role} and {taken[path]} cannot have one folder, {path}; name that of each")
        if not is_utf8(path):
            raise ConfigError(f"{role}'s folder {path!a} is {not_utf8()}")
        taken[path] = role
        check_apart(root, save)


def check_apart(root: Path, other: Path) -> None:
    """Raises ConfigError where `root` is, or lies in, the folder `other`, which is to stay as it is."""
    inner, outer = (Path(os.path.realpath(path)) for path in (root, other))
    if inner == outer or outer in inner.parents:
        raise ConfigError(f"{root} lies in {other}, where nothing is to be changed; name another folder with --to")


def _first_attempt(root: Path) -> int:
    check_links(root)
    number = take_number(root)
    if number != 1:
        give_back(root, number)
        raise ConfigError(f"a job began in {root} meanwhile; name a new folder with --to")
    return number


def _recorded(model: Path) -> tuple[str, tuple[ModelFile, ...]]:
    """Format and files of a model checkpoint, made durable."""
    for path in _odd(model):
        raise DamagedError(f"{path} is no plain file; copy the model (cp -aL) and name the copy")
    for path in model.rglob("*"):
        if not is_utf8(str(path)):
            raise DamagedError(f"{str(path)!a} has a name that is {not_utf8()}")
    kind = _format(model)
    try:
        files = record_files(model)
    except OSError as error:
        if storage.is_silence(error):
            raise storage.silent(model, error) from error
        raise DamagedError(f"{error.filename} cannot be read: {error.strerror}") from error
    problem = problem_with_files(model, files)
    if problem:
        raise DamagedError(f"it changes while it is imported: {problem}")
    return kind, files


def _odd(model: Path) -> Iterator[Path]:
    """What receipts do not vouch for: links, and what is neither file nor folder."""
    if model.is_symlink():
        yield model
    for folder, folders, files in storage.walk(model):
        yield from (path for name in folders if (path := Path(folder, name)).is_symlink())
        yield from (path for name in files if (path := Path(folder, name)).is_symlink() or not path.is_file())


def _format(model: Path) -> str:
    """Megatron's ckpt_format of a model's folder."""
    if (model / "metadata.json").is_file():
        kind = _backend(model / "metadata.json")
    elif any(model.glob("mp_rank_*")):
        kind = "torch"
    else:
        raise DamagedError(f"{model} holds neither metadata.json nor mp_rank_*: it is no checkpoint of Megatron")
    if kind not in FORMATS:
        raise MismatchError(
            f"{model} is saved as {kind!r}; convert it to {' or '.join(FORMATS)} with the Megatron that wrote it"
        )
    return kind


def _backend(file: Path) -> str:
    try:
        return str(json.loads(read_bytes(file, MAX_METADATA_BYTES))["sharded_backend"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError(f"{file} is damaged: {error!r:.200}") from error


def _write(
    root: Path,
    name: PointName,
    folders: Mapping[str, Path],
    parts: Mapping[str, tuple[str, tuple[ModelFile, ...]]],
    moment: Moment,
    source: Mapping[str, Any],
) -> None:
    nonce, roles = secrets.token_hex(16), tuple(folders)
    write_start(root, _start(name.attempt, nonce, roles, source))
    point = commit.open_point(root, name)
    commit.make_name_durable(point)
    for role, (kind, files) in parts.items():
        receipt = Receipt(
            role=role,
            iteration=name.iteration,
            attempt=name.attempt,
            nonce=nonce,
            directory=str(folders[role]),
            relative=os.path.relpath(folders[role], os.path.realpath(root)),
            format=kind,
            files=files,
            progress=moment,
        )
        commit.write_receipt(point, receipt)
    data = DataCheckpoint(
        iteration=name.iteration, attempt=name.attempt, nonce=nonce, progress=moment, rng=None, fingerprints={}
    )
    commit.write_data(point, data, None)
    commit.commit(point, name, nonce=nonce, roles=roles)
    for event in (Committed(iteration=name.iteration), Finished()):
        append(events_path(root, name.attempt, roles[0]), event)


def _start(attempt: int, nonce: str, roles: tuple[str, ...], source: Mapping[str, Any]) -> Start:
    return Start(
        attempt=attempt,
        nonce=nonce,
        outcome="fresh",
        parent=None,
        ancestry=(),
        requested=Request(),
        launch=launch_key(os.environ),
        versions={},
        config={"trained_roles": list(roles), "imported": dict(source)},
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
