"""Installed versions of what a checkpoint depends on."""

import functools
import sys

_PACKAGES = ("torch", "megatron-core", "transformer-engine", "apex", "megatron-resume")


@functools.cache  # every save asks, and looking them up takes milliseconds
def installed_versions() -> dict[str, str]:
    """Package -> version, of those that are installed."""
    from importlib import metadata  # a fifth of what a watchdog imports, most of which never ask

    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    # What runs, not what is installed: a checkout of Megatron's sources, or another wheel, may come first on the path.
    megatron = sys.modules.get("megatron.core.package_info")
    if megatron is not None:
        # From 0.18 on it ends in "+" and the commit of whatever git repository the folder lies in, be it your own.
        found["megatron-core"] = str(megatron.__version__).partition("+")[0]
    return found
