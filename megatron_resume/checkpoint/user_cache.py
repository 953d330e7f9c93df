"""Where this user keeps what can be made again: for this user alone, so that nobody else can plant a thing there."""

import os
from pathlib import Path

from .atomic import make_folder
from .plain_files import make_private

NAME = "megatron_resume"


def user_cache() -> Path | None:
    """Our folder in $XDG_CACHE_HOME, else in ~/.cache; None where neither names one, as for a user without a home."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):  # which the XDG specification says to ignore
        cache = os.path.expanduser("~/.cache")
    return Path(cache, NAME) if os.path.isabs(cache) else None


def make_user_cache(cache: Path) -> None:
    """Make it.

    Raises:
        OSError: It cannot be made; NotPlainError if it belongs to another user.
    """
    make_folder(cache.parent)
    make_private(cache)
