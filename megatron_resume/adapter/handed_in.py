"""What the model checkpoint of a save holds, told by every rank to rank 0, whose writer records it in the receipt.

Names and global shapes: the same on ranks that hold parts of the same tensors, others on other pipeline stages or with
other experts. They go the way of the random states, by the store and in the background, and take as much of it: a list
packs to some kilobytes, and equal ones are read once.
"""

import logging
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from ..checkpoint import contents
from ..checkpoint.contents import Contents
from ..checkpoint.records import Unknown
from ..errors import DamagedError
from . import background, ranks, serialization, state_dicts
from .state_dicts import Entry, LookedAt

logger = logging.getLogger("megatron_resume")


class HandedIn:
    """That of the saves of one role, as long as these are of the same objects. Every rank makes one, with the same key.

    Looked at in the first save alone: a state dict has thousands of entries, and training waits. If one of them comes
    later all the same, a load that asks for it finds it in the checkpoint's own metadata.

    Args:
        key: under which ranks leave it in the store.
        what: is saved, of `state_dicts.identity`.
    """

    def __init__(self, key: str = "", what: object = None):
        self.key, self.what = key, what
        self._found: Contents | Unknown | None = None  # on rank 0, once it was collected
        self._mine: list[Entry] | None = None
        self._store: Any = None
        self._num_ranks = 1

    @contextmanager
    def listening(self, args: Any, called_with: dict[str, Any]) -> Iterator[None]:
        """Hand in what Megatron's save_checkpoint saves inside the `with` block."""
        if self._mine is not None:
            yield
            return
        if getattr(args, "ckpt_format", "torch") == "torch":
            model, optimizer = called_with.get("model"), called_with.get("optimizer")
            self.hand_in(state_dicts.looked_at(lambda: state_dicts.of_this_rank(model, optimizer)))
        with serialization.before("save", self._hear):
            yield

    def _hear(self, state_dict: Any, _: object) -> None:
        self.hand_in(state_dicts.looked_at(lambda: state_dicts.of_sharded(state_dict)))

    def hand_in(self, found: LookedAt | None) -> None:
        """Call on every rank, or on none. Of a second call, as for what is saved beside the model, nothing is kept."""
        if self._mine is not None:
            return
        mine = found.entries if found else []
        self._mine, self._store, self._num_ranks = mine, ranks.store(), ranks.count()
        if ranks.rank() != 0 and self._store is not None:
            background.submit(lambda: ranks.post(self._store, self.key, _pack(mine)))

    def collect(self) -> Contents | Unknown:
        """On rank 0: what all ranks hold together. Unknown if one is silent: a save is worth more than its list."""
        if self._found is None:
            self._found = self._collected()
        return self._found

    def _collected(self) -> Contents | Unknown:
        if not self._mine:
            return msgspec.UNSET
        try:
            packed = ranks.collect(self._store, self.key, self._num_ranks) if self._store is not None else []
            found = contents.merge([state_dicts.spelled_out(self._mine), *map(_unpack, dict.fromkeys(packed))])
        except (DamagedError, msgspec.MsgspecError, zlib.error) as error:
            logger.warning("the receipt will not name the tensors of the model: %s", error)
            return msgspec.UNSET
        if contents.num_names(found) > contents.MAX_NAMES:
            logger.warning("the receipt will not name the tensors of the model: there are over %d", contents.MAX_NAMES)
            return msgspec.UNSET
        return found


def _pack(mine: list[Entry]) -> bytes:
    return zlib.compress(msgspec.msgpack.encode(state_dicts.spelled_out(mine)))


def _unpack(packed: bytes) -> Contents:
    return msgspec.msgpack.decode(zlib.decompress(packed), type=Contents)
