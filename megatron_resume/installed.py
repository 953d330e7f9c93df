"""Installed versions of what a checkpoint depends on."""

import functools
import sys
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
    if "megatron-core" not in found and "megatron.core.package_info" in sys.modules:  # a checkout of its sources
        found["megatron-core"] = str(sys.modules["megatron.core.package_info"].__shortversion__)
    return found
