"""What is installed here, found without importing any of it, so that `doctor` works where imports fail."""

import importlib.machinery
import importlib.metadata
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_resume.adapter import index_builder

from .script import is_guarded

_VERSION = re.compile(r"^VERSION\s*=\s*[\"'](.+)[\"']", re.MULTILINE)
_NUMBER = re.compile(r"^(MAJOR|MINOR|PATCH)\s*=\s*(\d+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Environment:
    """One machine and one command line; versions are None where a thing is absent."""

    python: str
    torch: str | None = None
    megatron_core: str | None = None
    megatron_path: str | None = None  # the folder that `import megatron` takes
    megatron_training: bool = False
    has_index_builder: bool = True  # of Megatron's datasets: compiled, or to be compiled
    transformer_engine: str | None = None
    apex_path: str | None = None
    apex_is_nvidias: bool = False  # another project has the name in the package registry
    nvidia_resiliency_ext: str | None = None
    chatlearn: str | None = None  # Alibaba's; another project has the name in the package registry
    chatlearn_path: str | None = None  # the folder that `import chatlearn` takes
    script: str | None = None
    script_is_guarded: bool = True  # `if __name__ == "__main__"`; True where there is no script
    arguments: tuple[str, ...] = ()

    def has(self, flag: str) -> bool:
        """Whether `flag` is among the arguments, as `--flag`, `--flag value` or `--flag=value`."""
        return any(argument.split("=", 1)[0] == flag for argument in self.arguments)

    def value(self, flag: str, default: str) -> str:
        """The value of `flag`, the last one if it is repeated, as argparse reads it."""
        value = default
        for argument, following in zip(self.arguments, (*self.arguments[1:], ""), strict=False):
            if argument == flag:
                value = following
            elif argument.startswith(flag + "="):
                value = argument.partition("=")[2]
        return value


def numbers(version: str | None) -> tuple[int, int]:
    """Major and minor of `version`; (0, 0) of none and of one that starts otherwise."""
    match = re.match(r"(\d+)\.(\d+)", version or "")
    return (int(match[1]), int(match[2])) if match else (0, 0)


def look(command: Sequence[str] = ()) -> Environment:
    """What `command` ([SCRIPT, ARGS...], may be empty) would find if it were started here."""
    script = Path(command[0]) if command else None
    path = [str(script.resolve().parent), *sys.path[1:]] if script else sys.path
    megatron, apex, chatlearn = (_find(package, path) for package in ("megatron", "apex", "chatlearn"))
    return Environment(
        python=platform.python_version(),
        torch=_distribution("torch"),
        megatron_core=_megatron_version(megatron),
        megatron_path=str(megatron) if megatron else None,
        megatron_training=megatron is not None and (megatron / "training").is_dir(),
        has_index_builder=megatron is None or _has_index_builder(megatron / "core" / "datasets"),
        transformer_engine=_distribution("transformer-engine"),
        apex_path=str(apex) if apex else None,
        apex_is_nvidias=apex is not None and (apex / "optimizers").is_dir(),
        nvidia_resiliency_ext=_distribution("nvidia-resiliency-ext"),
        chatlearn=_chatlearn_version(chatlearn),
        chatlearn_path=str(chatlearn) if chatlearn else None,
        script=str(script) if script else None,
        script_is_guarded=script is None or _is_guarded(script),
        arguments=tuple(command[1:]),
    )


def _distribution(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _find(package: str, path: Sequence[str]) -> Path | None:
    """The folder that `import package` takes first; for a namespace package the one with `core` in it."""
    spec = importlib.machinery.PathFinder.find_spec(package, list(path))
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    if spec and spec.origin and not folders:
        return Path(spec.origin)
    return next((folder for folder in folders if (folder / "core").is_dir()), folders[0] if folders else None)


def _megatron_version(megatron: Path | None) -> str | None:
    """The version that the sources in `megatron` state, since a checkout has no package metadata."""
    if megatron is None or not (megatron / "core").is_dir():
        return None
    try:
        found = dict(_NUMBER.findall((megatron / "core" / "package_info.py").read_text()))
    except OSError:
        found = {}
    parts = [found.get(part) for part in ("MAJOR", "MINOR", "PATCH")]
    return ".".join(part for part in parts if part) or _distribution("megatron-core") or "unknown"


def _has_index_builder(datasets: Path) -> bool:
    there = not datasets.is_dir() or index_builder.is_compiled(datasets)
    return there or index_builder.can_be_compiled(datasets)


def _chatlearn_version(chatlearn: Path | None) -> str | None:
    """The version that the sources in `chatlearn` state, or the package has; None where this is another ChatLearn."""
    if chatlearn is None or not (chatlearn / "runtime").is_dir():
        return None
    try:
        found = _VERSION.search((chatlearn / "utils" / "version.py").read_text())
    except (OSError, ValueError):
        found = None
    return found[1] if found else _distribution("pai-chatlearn") or "unknown"


def _is_guarded(script: Path) -> bool:
    try:
        return is_guarded(script.read_bytes())
    except (OSError, ValueError):
        return True  # another error will name it
