"""Installed versions of what a checkpoint depends on."""

from importlib import metadata

_PACKAGES = ("torch", "megatron-core", "transformer-engine", "apex", "megatron-resume")


def installed_versions() -> dict[str, str]:
    """Package -> version, of those that are installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
