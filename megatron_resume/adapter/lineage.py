"""An attempt that went back becomes the lineage once it trains or saves, and only then moves newer models aside."""

from ..checkpoint import untrained
from ..crash import crash_point
from . import ranks, save_folders
from .ending import naming_the_path
from .session import Session


def claim(current: Session) -> None:
    """Make this attempt the lineage, if it is not; before its first train step and each save. Acts on rank 0.

    No other rank waits for it: what it moves aside lies beyond the resume point, where nothing was saved yet.

    Raises:
        RejoinError: A newer attempt began.
        ConfigError: The storage refused.
    """
    if ranks.rank() != 0 or current.lease_keeper is None or not untrained.is_untrained(current.root, current.attempt):
        return
    current.lease_keeper.check()
    with naming_the_path(current.root):
        untrained.take_back(current.root, current.attempt)
    crash_point("lineage.claimed")
    for role in current.fenced:
        save_folders.clear_beyond_point(current, role)
