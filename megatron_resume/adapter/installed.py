"""Installed versions of what a checkpoint depends on."""

import functools
from importlib import metadata

_PACKAGES = ("torch", "megatron-core", "transformer-engine", "apex", "megatron-resume")


@functools.cache  # every save asks, and looking them up takes milliseconds
def installed_versions() -> dict[str, str]:
    """Package -> version, of those that are installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
