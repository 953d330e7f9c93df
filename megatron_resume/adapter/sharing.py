"""State that all ranks share: that of rank 0 is saved, so that of the others must be the same."""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from ..checkpoint import arrays as codec
from ..checkpoint.arrays import Arrays
from ..errors import DivergedError

SHOWN = 4  # ranks in an error


class Captured(msgspec.Struct, frozen=True):
    """What this rank shares with others, by name, as it would be stored."""

    states: dict[str, Any]
    arrays: Arrays

    def digests(self) -> dict[str, bytes]:
        """Equal for equal states, whatever their arrays are called and in whatever order dicts hold their keys."""
        contents = _Contents(self.arrays)
        return {
            name: hashlib.blake2b(
                msgspec.json.encode(_in_one_order(codec.renamed(state, contents)), order="sorted"), digest_size=16
            ).digest()
            for name, state in self.states.items()
        }


def _in_one_order(state: Any) -> Any:
    """`state` as `codec.pack` made it, with what it made of dicts whose keys are not plain strings sorted, too."""
    if isinstance(state, list):
        return [_in_one_order(item) for item in state]
    if not isinstance(state, dict):
        return state
    ordered = {key: _in_one_order(item) for key, item in state.items()}
    if "$items" in ordered:
        ordered["$items"].sort(key=lambda pair: msgspec.json.encode(pair[0], order="sorted"))
    return ordered


class _Contents(dict[str, str]):
    """Name of an array -> digest of what it holds, when it is asked for."""

    def __init__(self, arrays: Arrays):
        super().__init__()
        self._arrays = arrays

    def __missing__(self, name: str) -> str:
        array = self._arrays[name]
        content = hashlib.blake2b(f"{array.dtype.str} {array.shape} ".encode(), digest_size=16)
        content.update(memoryview(array).cast("B") if array.size else b"")
        return content.hexdigest()


def check(mine: Captured, others: Mapping[int, Mapping[str, bytes]]) -> None:
    """Compare the states of rank 0 with those of the ranks that track them, too.

    Args:
        mine: of rank 0.
        others: rank -> name -> digest.

    Raises:
        DivergedError: They differ: after a resume every rank would have that of rank 0.
    """
    digests = mine.digests()
    for name in sorted({name for of_rank in others.values() for name in of_rank}):
        differing = [rank for rank, found in others.items() if name in found and found[name] != digests.get(name)]
        if differing:
            raise DivergedError(_problem(name, differing, tracked=name in digests))


def _problem(name: str, ranks: list[int], *, tracked: bool) -> str:
    more = f" and {len(ranks) - SHOWN} more" if len(ranks) > SHOWN else ""
    which = f"{'rank' if len(ranks) == 1 else 'ranks'} {', '.join(map(str, ranks[:SHOWN]))}{more}"
    if not tracked:
        return (
            f"{name!r} is tracked on {which} and not on rank 0, whose state would be saved; track it there, too, or "
            f"on every rank that has its own with track({name!r}, ..., per_rank=True)"
        )
    return (
        f"{name!r} is tracked as one state for all ranks, and that of {which} differs from that of rank 0, which every "
        f"rank would get after a resume. Keep each rank's own with track({name!r}, ..., per_rank=True), make them "
        f"equal before the save, or, if rank 0 alone needs it, track({name!r}, None) on the others"
    )
