"""Megatron RLHF jobs that resume by themselves, exactly: policy, value and data of one moment."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapter.api import Progress, advance, mark_progress, phase, progress, should_stop, track
    from .adapter.arguments import role_args
    from .adapter.install import install, uninstall

__all__ = [
    "Progress",
    "advance",
    "install",
    "mark_progress",
    "phase",
    "progress",
    "role_args",
    "should_stop",
    "track",
    "uninstall",
]

_HOMES = {
    "Progress": "api",
    "advance": "api",
    "mark_progress": "api",
    "phase": "api",
    "progress": "api",
    "should_stop": "api",
    "track": "api",
    "role_args": "arguments",
    "install": "install",
    "uninstall": "install",
}


def __getattr__(name: str) -> Any:
    """Names are fetched when first used, so that the command line starts without torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f".adapter.{_HOMES[name]}", __name__), name)
