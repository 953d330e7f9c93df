"""ResumeConfig: what the user asked for, frozen, documented field by field, checked at birth."""

import argparse
import functools
import logging
import sys
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from . import roles
from .errors import ConfigError
from .sources import CONFIG_VARIABLE, Given, from_environ, from_yaml, show, variable

logger = logging.getLogger(__name__)

GROUP = "resume"
BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
MAX_LEASE_S = 86_400  # in which another node learns that this one died
MAX_COUNT = 1_000_000_000
MAX_ITERATION = 10**15 - 1  # that a folder can name
MAX_DIGITS = 20  # of a number; longer ones are refused as text
NONE = ("", "none", "null", "~")  # ChatLearn writes Python's None into its YAML


def _about(description: str, *, example: str, metavar: str | None = None) -> Meta:
    """The one text about a field: --help, the error messages and the docs all print it."""
    return Meta(description=description, examples=[example], extra={"metavar": metavar})


class ResumeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where data checkpoints live, which one to continue from, how many to keep, and who trains."""

    data_checkpoint_path: Annotated[
        str | None,
        _about(
            "Folder for resume points, shared by all nodes. Without it nothing is written or resumed.",
            example="/shared/run1/data_checkpoint",
            metavar="DIR",
        ),
    ] = None
    enable_resume_training: Annotated[
        bool,
        _about(
            "Continue from the newest whole resume point (the default). "
            "Switched off, the start is fresh and every argument is left alone.",
            example="true",
        ),
    ] = True
    load_data_checkpoint_iteration: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_ITERATION)] | None,
        _about(
            "Continue from this iteration, an integer of 1 or more, instead of the newest. Honoured once.",
            example="40",
            metavar="N",
        ),
    ] = None
    load_data_checkpoint_attempt: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_COUNT)] | None,
        _about(
            "Continue from the line of this attempt, an integer of 1 or more, also when it was abandoned; "
            "`status` lists them. Honoured once.",
            example="3",
            metavar="A",
        ),
    ] = None
    start_over: Annotated[
        bool,
        _about(
            "Start fresh and move what the job saved so far aside; nothing is deleted. Honoured once.",
            example="true",
        ),
    ] = False
    take_over: Annotated[
        bool,
        _about(
            "Start although another process seems to hold the job: only when you know that it is dead.",
            example="true",
        ),
    ] = False
    resume_lease_time: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_LEASE_S)],
        _about(
            "Seconds after which a holder on another machine that gives no sign counts as dead; 30 by default, 86400 "
            "at most.",
            example="30",
            metavar="SECONDS",
        ),
    ] = 30
    resume_read_timeout: Annotated[
        Annotated[int, Meta(ge=0, le=86_400)],
        _about(
            "Seconds for which a start asks a storage again that does not answer (ESTALE, EIO, ETIMEDOUT), before it "
            "ends with 203, to be restarted; 60 by default.",
            example="60",
            metavar="SECONDS",
        ),
    ] = 60
    resume_digests: Annotated[
        bool,
        _about(
            "After each commit read model files over 16 MiB again, off the training thread, and record their SHA-256 "
            "(the default).",
            example="true",
        ),
    ] = True
    max_data_ckpt_nums: Annotated[
        Annotated[int, Meta(ge=2, le=MAX_COUNT)] | None,
        _about(
            "Resume points to keep, an integer of 2 or more, so that one outlives a failed save. "
            "Without it all are kept.",
            example="3",
            metavar="N",
        ),
    ] = None
    resume_prune_models: Annotated[
        bool,
        _about(
            "With --max-data-ckpt-nums, also delete the model checkpoints of the points that are removed.",
            example="true",
        ),
    ] = False
    max_uncommitted_saves: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_COUNT)],
        _about(
            "Stop after this many saves in a row that could not be committed, since the next failure would cost all "
            "of them; 10 by default.",
            example="10",
            metavar="N",
        ),
    ] = 10
    on_dataset_change: Annotated[
        Literal["refuse", "append"],
        _about(
            "What to do where the dataset of a tracked sampler is not the one that was saved with: refuse (the "
            "default), or append: rows and datasets that were added at the end enter from the next epoch on.",
            example="append",
            metavar="WHAT",
        ),
    ] = "refuse"
    accept_inexact_data: Annotated[
        bool,
        _about(
            "Continue although Megatron's own loader cannot go on where it stopped (cyclic on other ranks, external "
            "without a saved place): rows come again or never, and a warning says so.",
            example="true",
        ),
    ] = False
    resume_role: Annotated[
        str | None,
        _about(
            "Role of the model in this process, where it holds only one: policy, value, reference or reward.",
            example="policy",
            metavar="ROLE",
        ),
    ] = None
    trained_roles: Annotated[
        tuple[str, ...],
        _about(
            "Roles, separated by commas, that commit together to one resume point. Without it: --resume-role; else "
            "those of the job's resume points; else those that the script names by role_args; else policy alone.",
            example="policy,value",
            metavar="ROLES",
        ),
    ] = ()  # not known yet: `resume.role_set`

    def __post_init__(self) -> None:
        for key in KEYS:
            value = getattr(self, key)
            if key == "trained_roles" and value == ():
                continue
            try:
                msgspec.structs.force_setattr(self, key, _checked(key, value))
            except ConfigError as error:
                raise ConfigError(f"{key} is {show(value)}: {error}") from None
        if self.resume_prune_models and self.max_data_ckpt_nums is None:
            raise ConfigError(
                "resume_prune_models is on, but max_data_ckpt_nums is not set, so nothing is ever removed; set it to 2 "
                "or more, or leave resume_prune_models out"
            )
        if self.resume_role in roles.TRAINED and not self.trained_roles:
            msgspec.structs.force_setattr(self, "trained_roles", (self.resume_role,))
        if self.resume_role in roles.TRAINED and self.resume_role not in self.trained_roles:
            raise ConfigError(
                f"resume_role is {self.resume_role}, but trained_roles is {','.join(self.trained_roles)}; "
                f"add {self.resume_role} to trained_roles"
            )


KEYS: tuple[str, ...] = ResumeConfig.__struct_fields__


def add_flags(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the group "resume" to `parser`, once; every default is None, which means "not given".

    Raises:
        ConfigError: The script defines one of our flags itself.
    """
    if any(group.title == GROUP for group in parser._action_groups):
        return parser
    group = parser.add_argument_group(GROUP)
    for key in KEYS:
        meta, kind = _meta(key), _kind(key)
        options: dict[str, object] = {"metavar": (meta.extra or {})["metavar"]}
        if kind is bool:
            options = {"action": argparse.BooleanOptionalAction}
        elif kind is int:
            options["type"] = int
        _add(group, key, f"{meta.description} [{variable(key)}]", options)
    text = f"ChatLearn rlhf.yaml, whose section `runtime:` may hold all of these keys. [{CONFIG_VARIABLE}]"
    _add(group, "resume_config", text, {"metavar": "FILE"})
    return parser


def _add(group: argparse._ArgumentGroup, key: str, text: str, options: Mapping[str, object]) -> None:
    flag = _flag(key)
    try:
        group.add_argument(flag, dest=key, default=None, help=text, **options)  # type: ignore[arg-type]
    except argparse.ArgumentError as error:
        raise ConfigError(
            f"the script defines {flag} itself; remove it there, because megatron_resume adds it"
        ) from error


def resolve(
    flags: Mapping[str, object], environ: Mapping[str, str], told: Mapping[str, Given] | None = None
) -> ResumeConfig:
    """The configuration that the flags, the environment and the YAML file make together.

    `flags` maps destinations to values, None where a flag was not given: `vars(args)`. A flag wins over
    a `MEGATRON_RESUME_*` variable, that over the `runtime:` section of `--resume-config`, that over the
    default. A process that is to train one role holds it: it need not be named by `--resume-role`, too. Only the value
    that wins is converted and checked. `told` is what an engine says that has read its own
    YAML, instead of the file.

    Raises:
        ConfigError: A key is unknown, or a value is wrong; the message names where, and what to type.
    """
    given = from_environ(KEYS, environ)
    for key in KEYS:
        if flags.get(key) is not None:
            given[key] = Given(flags[key], _flag(key), _flag(key) + " ")
    path = flags.get("resume_config") or environ.get(CONFIG_VARIABLE)
    if path:
        given = {**from_yaml(str(path), KEYS, environ, skip=given), **given}
    given = {**(told or {}), **given}
    values = {key: _converted(key, given[key], environ) for key in KEYS if key in given}
    config = ResumeConfig(**{key: value for key, value in values.items() if value is not None})  # type: ignore[arg-type]
    if config.resume_role is None and len(config.trained_roles) == 1:
        return msgspec.structs.replace(config, resume_role=config.trained_roles[0])
    return config


def _converted(key: str, given: Given, environ: Mapping[str, str]) -> object:
    """The value of `key` with its proper type, checked; None where "none" was written."""
    if given.value == "" and given.source.startswith("--"):
        raise ConfigError(f"{given.source} is empty; {_fix(key, given)}, or leave it out")
    value = _from_text(key, given.value) if isinstance(given.value, str) else given.value
    if value is None:
        return None
    if key == "max_data_ckpt_nums" and value == 1 and value is not True:
        _warn(f"{given.source} is 1; 2 resume points are kept, so that one outlives a failed save", environ)
        return 2
    if _kind(key) is bool and type(value) is int and value in (0, 1):
        value = bool(value)
    try:
        return _checked(key, value)
    except ConfigError as error:
        raise ConfigError(f"{given.source} is {show(given.value)}: {error}; {_fix(key, given)}") from None


def _from_text(key: str, text: str) -> object:
    """What `text` means for `key`; text that means nothing is returned for the check to refuse."""
    text, kind = text.strip(), _kind(key)
    if text.lower() in NONE:
        return None
    if kind is bool:
        return BOOLEANS.get(text.lower(), text)
    if kind is tuple:
        return tuple(name.strip() for name in text.strip("[]").split(",") if name.strip())
    if kind is int and text.lstrip("+-").isdecimal() and len(text) <= MAX_DIGITS:
        return int(text)
    return text


def _checked(key: str, value: object) -> object:
    """`value` in its final form, if it is one that `key` may have.

    Raises:
        ConfigError: It is not; the message gives the reason only.
    """
    try:
        value = msgspec.convert(value, _hints()[key])
    except msgspec.ValidationError as error:
        raise ConfigError(f"{error} ({_meta(key).description})") from None
    if key == "data_checkpoint_path" and value is not None:
        _check_path(str(value))
    if key == "resume_role" and value is not None:
        return roles.canonical(str(value))
    if key == "trained_roles":
        return roles.trained_roles(typing.cast("tuple[str, ...]", value))
    return value


def _check_path(path: str) -> None:
    """Refuse what cannot be one POSIX folder that every node sees under the same name."""
    scheme, separator, _ = path.partition("://")
    if separator:
        raise ConfigError(f"this is a {scheme} URL; it must be a POSIX folder shared by all nodes")
    if not path.strip() or "\0" in path:
        raise ConfigError("this is no name of a folder")
    if not is_utf8(path):
        raise ConfigError(f"this name is {not_utf8()}")
    if path.startswith(("~", "$")):
        raise ConfigError("`~` and `$` are not expanded here; write the whole path")


def is_utf8(path: str) -> bool:
    """Whether a path that Python read can be written into a record, in which every process reads the same."""
    if path.isascii():
        return True
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return _reads_utf8()


def not_utf8() -> str:
    """What a name is for which `is_utf8` says no, and what to type."""
    if _reads_utf8():
        return "not UTF-8, in which records are written; rename it"
    return (
        f"not ASCII, and by its locale this process reads names as {sys.getfilesystemencoding()}, not as UTF-8, in "
        "which records are written; set PYTHONUTF8=1 on every node (or LC_ALL=C.UTF-8)"
    )


def _reads_utf8() -> bool:
    return sys.getfilesystemencoding().lower().replace("-", "") == "utf8"


def _fix(key: str, given: Given) -> str:
    example = (_meta(key).examples or [""])[0]
    if given.source.startswith("--") and _kind(key) is bool:
        return f"type {_flag(key)} or --no-{_flag(key)[2:]}"
    return f"type for example `{given.prefix}{example}`"


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")


def _warn(message: str, environ: Mapping[str, str]) -> None:
    if environ.get("RANK", "0") == "0":
        _warn_once(message)


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning("%s", message)  # arguments are parsed more than once in a process


@functools.cache
def _hints() -> dict[str, typing.Any]:
    return typing.get_type_hints(ResumeConfig, include_extras=True)


def _meta(key: str) -> Meta:
    meta: Meta = _hints()[key].__metadata__[-1]
    return meta


def _kind(key: str) -> type:
    """bool, int, str or tuple: what a value of `key` is, None left aside."""
    hint = typing.get_type_hints(ResumeConfig)[key]
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        hint = typing.get_args(hint)[0]
    if origin is Literal:
        return str
    kind: type = hint if isinstance(hint, type) and origin is not tuple else tuple
    return kind
