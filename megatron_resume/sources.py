"""Where our options may be written besides the command line: environment variables, a ChatLearn YAML.

Knows nothing of the options themselves; `config` names the keys and converts what is found here.
"""

import difflib
import os
import re
import reprlib
from collections.abc import Collection, Mapping
from typing import NamedTuple

from .errors import ConfigError
from .plain_yaml import load_yaml

PREFIX = "MEGATRON_RESUME_"
CONFIG_VARIABLE = PREFIX + "CONFIG"
# Variables of ours that are no configuration: crash points, watching, the launch key.
_OTHERS = (
    "CRASH",
    "LAUNCH_ID",
    "POLICY",
    "NO_WATCH",
    "WATCHED",
    "ENDINGS",
    "ENGINE_STARTS",
    "REQUEUES",
    "NEW_BUDGET",
    "PROGRESS_LINES",
)
OTHER_VARIABLES = tuple(PREFIX + name for name in _OTHERS)
SECTION = "runtime"
NEAR_MISS = 0.8  # difflib ratio; ChatLearn's own keys stay below it, a test holds that
_MAX_BITS = 10_000


class _Repr(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        """Python writes no number of more than 4,300 digits."""
        return super().repr_int(x, level) if x.bit_length() < _MAX_BITS else f"a number of {x.bit_length()} bits"


_repr = _Repr()  # YAML aliases may unfold to gigabytes
_repr.maxlevel, _repr.maxstring, _repr.maxother = 2, 200, 200
_PLACEHOLDER = r"\$\{([^{}:]*)(?::([^{}]*))?\}"


class Given(NamedTuple):
    """A value as it was written, where that was, and how to begin a correct one."""

    value: object
    source: str  # for the reader: "--resume-role", "rlhf.yaml: runtime.resume_role"
    prefix: str  # what stands before the value: "--resume-role ", "resume_role: "


def show(value: object) -> str:
    """`value` for an error message, never longer than a line."""
    return _repr.repr(value)


def nearest(name: str, known: Collection[str]) -> str:
    """What to type instead of the unknown `name`: the nearest of `known`, or all of them."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"write {near[0]}" if near else f"known are {', '.join(known)}"


def variable(key: str) -> str:
    """The environment variable of `key`; a leading `resume_` is not said twice."""
    return PREFIX + key.removeprefix("resume_").upper()


def from_environ(keys: Collection[str], environ: Mapping[str, str]) -> dict[str, Given]:
    """What the `MEGATRON_RESUME_*` variables say; an empty one says nothing.

    Raises:
        ConfigError: A variable with our prefix is not known.
    """
    names = {variable(key): key for key in keys}
    known = [*names, CONFIG_VARIABLE, *OTHER_VARIABLES]
    for name in environ:
        if name.startswith(PREFIX) and name not in known:
            raise ConfigError(
                f"the environment variable {name} (= {show(environ[name])}) is not known; "
                f"{nearest(name, known)}, or unset it"
            )
    return {key: Given(environ[name], name, f"{name}=") for name, key in names.items() if environ.get(name)}


def from_yaml(
    path: str, keys: Collection[str], environ: Mapping[str, str], skip: Collection[str] = ()
) -> dict[str, Given]:
    """What the `runtime:` section of the ChatLearn configuration at `path` says about `keys`.

    `${name:default}` is filled in from `environ`. Keys in `skip` (given elsewhere) are not filled in,
    so that a variable which only they need may be missing. Keys of ChatLearn are left alone.

    Raises:
        ConfigError: The file cannot be used, a key is a misspelling of ours, or a variable is missing.
    """
    section = _section(path)
    given = {}
    for key, value in section.items():
        if key not in keys:
            _refuse_near_miss(path, str(key), value, keys)
        elif key not in skip:
            source = f"{path}: {SECTION}.{key}"
            text = _interpolated(value, environ, source) if isinstance(value, str) else value
            if text is not None:
                given[key] = Given(text, source, f"{key}: ")
    return given


def _section(path: str) -> dict[str, object]:
    """The `runtime:` mapping of the YAML file at `path`."""
    content = _load(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds {show(content)}; it must be a mapping with a section `{SECTION}:`")
    if SECTION not in content:
        raise ConfigError(
            f"{path} has no section `{SECTION}:` (found: {show(list(content))}); put the resume keys under `{SECTION}:`"
        )
    section = content[SECTION] if content[SECTION] is not None else {}
    if not isinstance(section, dict):
        raise ConfigError(f"{path}: {SECTION} is {show(section)}; it must hold `key: value` lines")
    return section


def _load(path: str) -> object:
    if not os.path.isfile(path):
        raise ConfigError(f"{path} is no file; --resume-config needs the path of an rlhf.yaml")
    try:
        return load_yaml(path, ours=SECTION)
    except ConfigError as error:
        raise ConfigError(f"{path} {error}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); --resume-config needs an rlhf.yaml") from error


def _refuse_near_miss(path: str, key: str, value: object, keys: Collection[str]) -> None:
    """Raise for a key that nobody but us would use; ChatLearn's own keys pass."""
    near = difflib.get_close_matches(key, keys, n=1, cutoff=NEAR_MISS)
    if near or "resume" in key:
        raise ConfigError(f"{path}: {SECTION}.{key} (= {show(value)}) is not known; {nearest(key, keys)}")


def _interpolated(text: str, environ: Mapping[str, str], source: str) -> str | None:
    """`text` with each `${name:default}` replaced; None where an empty default leaves nothing."""

    def value(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        if name in environ:
            return environ[name]
        if default is None:
            raise ConfigError(
                f"{source} is {show(text)}, but the environment variable {name} is not set; "
                f"type `export {name}=...`, or give a default: ${{{name}:default}}"
            )
        return default

    return re.sub(_PLACEHOLDER, value, text).strip() or None
