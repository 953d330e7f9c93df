"""Tracked objects of which each data-parallel rank has its own, such as torchdata's StatefulDataLoader."""

import sys
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np

from ..checkpoint.arrays import Arrays
from ..errors import DamagedError, MismatchError

TAG = "$ranks"  # in the data checkpoint: the states of all data-parallel ranks, in their order


class Captured(msgspec.Struct, frozen=True):
    """The states of this rank's loaders by name, packed for a data checkpoint."""

    data_rank: int  # data-parallel; tensor- and pipeline-parallel ranks read the same data, or none
    states: dict[str, Any]
    arrays: Arrays

    def pack(self) -> bytes:
        arrays = {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in self.arrays.items()}
        return msgspec.msgpack.encode((self.data_rank, self.states, arrays))


_Packed = tuple[int, dict[str, Any], dict[str, tuple[str, tuple[int, ...], bytes]]]


def merge(parts: Iterable[bytes]) -> tuple[dict[str, Any], Arrays]:
    """The states of all data-parallel ranks by name, as they are stored; the first rank that has one speaks.

    Raises:
        DamagedError: A data-parallel rank tracks no object of a name that others track.
    """
    states: dict[str, dict[int, Any]] = {}
    arrays: Arrays = {}
    data_ranks = set()
    for part in parts:
        data_rank, of_rank, packed = msgspec.msgpack.decode(part, type=_Packed)
        data_ranks.add(data_rank)
        for name in of_rank:
            states.setdefault(name, {}).setdefault(data_rank, of_rank[name])
        arrays.update({n: np.frombuffer(data, dtype).reshape(shape) for n, (dtype, shape, data) in packed.items()})
    for name, of_ranks in states.items():
        if missing := sorted(data_ranks - of_ranks.keys()):
            raise DamagedError(f"data-parallel rank {missing[0]} tracks no {name!r}; call track there, too")
    return {name: {TAG: [of_ranks[rank] for rank in sorted(of_ranks)]} for name, of_ranks in states.items()}, arrays


def is_of_ranks(state: Any) -> bool:
    """Whether a stored state is one for each data-parallel rank."""
    return isinstance(state, dict) and TAG in state


def state_of(name: str, state: Any, data_rank: int, data_ranks: int) -> Any:
    """The stored state of one rank.

    Raises:
        DamagedError: It is no list of states.
        MismatchError: It was saved by another number of data-parallel ranks, or of an object that all share.
    """
    if not is_of_ranks(state):
        raise MismatchError(
            f"{name!r} was saved as one state for all ranks, and now each rank has its own; track what was tracked, "
            "or track it under another name"
        )
    states = state[TAG]
    if not isinstance(states, list):
        raise DamagedError(f"the state of {name!r} is damaged: {TAG} holds {type(states).__name__}")
    if len(states) != data_ranks:
        raise MismatchError(
            f"{name!r} holds the position of each of {len(states)} data-parallel ranks, and this run has {data_ranks}: "
            "prompts would be lost and repeated. Start with as many ranks; or draw by "
            "megatron_resume.data.EpisodeSampler.for_rank, whose order does not depend on ranks"
        )
    return states[data_rank]


def reshards(name: str, obj: Any, state: Any, data_ranks: int, *, mid_episode: bool) -> bool:
    """Whether `obj` can go on from the job's consumed samples where its state is of another number of ranks.

    Raises:
        MismatchError: It could between two episodes, when it has given what the job has consumed and no more.
    """
    if not is_batches(getattr(obj, "batch_sampler", None)):
        return False
    if not is_of_ranks(state) or not isinstance(state[TAG], list) or len(state[TAG]) == data_ranks:
        return False
    if mid_episode:
        raise MismatchError(
            f"{name!r} was saved in mid-episode on {len(state[TAG])} data-parallel ranks, and this run has "
            f"{data_ranks}: prompts that it gave would come again. Start with as many ranks, or go back to a point "
            "between two episodes"
        )
    return True


def is_batches(obj: object) -> bool:
    """Whether `obj` is what `EpisodeSampler.for_rank` gave."""
    module = sys.modules.get("megatron_resume.data.batches")
    return module is not None and isinstance(obj, module.RankBatches)


def is_loader(obj: object) -> bool:
    """Whether `obj` is one that is known to be of a single rank: torchdata's StatefulDataLoader."""
    module = sys.modules.get("torchdata.stateful_dataloader")
    return module is not None and isinstance(obj, module.StatefulDataLoader)
