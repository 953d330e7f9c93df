"""Which resume points retention may remove. Changes nothing, and knows only its arguments."""

from collections.abc import Callable

from ..checkpoint.folder import Folder
from ..checkpoint.layout import PointName
from .choose import head, live_line


def surplus(folder: Folder, keep: int, is_whole: Callable[[PointName], bool]) -> list[PointName]:
    """Committed points of the live line that are older than its newest `keep` whole ones, oldest first.

    A damaged point counts for nothing, or the day on which `keep` of them are damaged leaves no other. Points of
    abandoned lines are left alone: somebody went back on purpose, and may want to go forth again.
    """
    found: list[PointName] = []
    kept = 0
    for point in live_line(folder, head(folder)):
        if not folder.is_committed(point):
            continue
        if kept == keep:
            found.append(point)
        elif is_whole(point):
            kept += 1
    return found[::-1]
