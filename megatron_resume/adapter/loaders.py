"""Tracked objects of which each rank has its own, such as torchdata's StatefulDataLoader."""

import sys
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np

from ..checkpoint import arrays as codec
from ..checkpoint.arrays import Arrays
from ..errors import DamagedError, MismatchError
from . import ranks

TAG = "$ranks"  # in the data checkpoint: the states of all data-parallel ranks, in their order
ALL = "$all_ranks"  # the states of all ranks, null of one that tracks none; `layout` says which ranks can take them
DATA_RANKS = "data_ranks"  # beside these: the data-parallel rank of each

_OfName = tuple[Any, dict[str, tuple[str, tuple[int, ...], bytes]]]  # a state and its arrays: dtype, shape, bytes
_Packed = tuple[int, dict[str, bytes]]  # data-parallel rank; each name's packed _OfName


class Captured(msgspec.Struct, frozen=True):
    """What this rank has its own of, by name: states, and the arrays that each names."""

    data_rank: int
    states: dict[str, tuple[Any, Arrays]]

    def pack(self) -> bytes:
        """Equal states are equal bytes, whichever rank they are of."""
        return msgspec.msgpack.encode((self.data_rank, {name: _packed(*of) for name, of in self.states.items()}))


def _packed(state: Any, arrays: Arrays) -> bytes:
    plain = {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in arrays.items()}
    return msgspec.msgpack.encode((state, plain))


def merge(parts: Iterable[bytes], layout: dict[str, int]) -> tuple[dict[str, Any], Arrays]:
    """The states of all ranks by name, as they are stored.

    One for each data-parallel rank, whose tensor- and pipeline-parallel ranks read the same data or none; if these
    differ, one for each rank.

    Args:
        parts: what each rank packed, in rank order.
        layout: of `rng.layout`.

    Raises:
        DamagedError: A data-parallel rank tracks no object of a name that others track.
    """
    of_ranks = [msgspec.msgpack.decode(part, type=_Packed) for part in parts]
    data_ranks = sorted({data_rank for data_rank, _ in of_ranks})
    states: dict[str, Any] = {}
    arrays: Arrays = {}
    for name in dict.fromkeys(name for _, of_rank in of_ranks for name in of_rank):
        distinct = {rank: {own[name] for at, own in of_ranks if at == rank and name in own} for rank in data_ranks}
        missing = [rank for rank, found in distinct.items() if not found]
        if missing:
            raise DamagedError(f"data-parallel rank {missing[0]} tracks no {name!r}; call track there, too")
        if all(len(found) == 1 for found in distinct.values()):
            states[name] = {TAG: _all_stored(name, [found.pop() for found in distinct.values()], arrays)}
        else:
            found = _all_stored(name, [own.get(name) for _, own in of_ranks], arrays)
            states[name] = {ALL: found, "layout": layout, DATA_RANKS: [data_rank for data_rank, _ in of_ranks]}
    return states, arrays


def _all_stored(name: str, each: list[bytes | None], arrays: Arrays) -> list[Any]:
    """The state in each place; arrays of equal ones are kept once, as of an average of a shard that many ranks have."""
    stored: dict[bytes, Any] = {}
    for place, packed in enumerate(each):
        if packed is not None and packed not in stored:
            stored[packed] = _stored(name, place, packed, arrays)
    return [None if packed is None else stored[packed] for packed in each]


def _stored(name: str, place: int, packed: bytes, arrays: Arrays) -> Any:
    """The state of one rank; its arrays go into `arrays`, under names that no other rank has."""
    state, own = msgspec.msgpack.decode(packed, type=_OfName)
    new = {old: f"{_prefix(name)}@{place}{old.removeprefix(_prefix(name))}" for old in own}
    arrays.update({new[old]: np.frombuffer(data, dtype).reshape(shape) for old, (dtype, shape, data) in own.items()})
    return codec.renamed(state, new)


def _prefix(name: str) -> str:
    return f"tracked/{name}"


def capture(name: str, state: Any, tensor: codec.TensorToArray) -> tuple[Any, Arrays]:
    """`state` of the object `name` as it is stored, and its arrays."""
    arrays: Arrays = {}
    return codec.pack(state, _prefix(name), arrays, tensor), arrays


def is_of_ranks(state: Any) -> bool:
    """Whether a stored state is one for each rank, or for each data-parallel one."""
    return isinstance(state, dict) and (TAG in state or ALL in state)


def state_of(name: str, state: Any, data_rank: int, data_ranks: int, layout: dict[str, int]) -> Any:
    """The stored state of this rank.

    Raises:
        DamagedError: It is no list of states.
        MismatchError: It was saved by ranks that were laid out otherwise, or of an object that all share.
    """
    if not is_of_ranks(state):
        raise MismatchError(
            f"{name!r} was saved as one state for all ranks, and now each rank has its own; track what was tracked, "
            "or track it under another name"
        )
    tag = TAG if TAG in state else ALL
    states = state[tag]
    if not isinstance(states, list):
        raise DamagedError(f"the state of {name!r} is damaged: {tag} holds {type(states).__name__}")
    if tag == ALL:
        return _of_this_rank(name, states, state.get("layout"), layout)
    if len(states) != data_ranks:
        raise MismatchError(
            f"{name!r} holds the position of each of {len(states)} data-parallel ranks, and this run has {data_ranks}: "
            "prompts would be lost and repeated. Start with as many ranks; or draw by "
            "megatron_resume.data.EpisodeSampler.for_rank, whose order does not depend on ranks"
        )
    return states[data_rank]


def _of_this_rank(name: str, states: list[Any], saved: Any, layout: dict[str, int]) -> Any:
    if saved != layout or len(states) != layout["ranks"]:
        raise MismatchError(
            f"{name!r} holds the state of each of {len(states)} ranks ({saved!a:.200}), and this run has {layout}: "
            "no rank could tell which is its own. Start with the same parallel sizes"
        )
    found = states[ranks.rank()]
    if found is None:
        raise MismatchError(
            f"{name!r} was not tracked on rank {ranks.rank()} when it was saved; track what was tracked"
        )
    return found


def of_data_ranks(state: Any, layout: dict[str, int]) -> Any:
    """The stored state of a loader, with one for each data-parallel rank if the ranks were laid out otherwise.

    Ranks of one data-parallel rank read the same rows. Their loaders differ in the seed of their workers, since
    Megatron seeds each pipeline stage otherwise.
    """
    if not isinstance(state, dict) or ALL not in state or state.get("layout") == layout:
        return state
    states, data_ranks = state[ALL], state.get(DATA_RANKS)
    if not (
        isinstance(states, list) and isinstance(data_ranks, list) and all(type(rank) is int for rank in data_ranks)
    ):
        return state
    first: dict[int, Any] = {}
    for rank, own in zip(data_ranks, states, strict=False):
        if own is not None:
            first.setdefault(rank, own)
    return {TAG: [first[rank] for rank in sorted(first)]}


def reshards(name: str, obj: Any, state: Any, data_ranks: int, *, mid_episode: bool) -> bool:
    """Whether `obj` can go on from the job's consumed samples where its state is of another number of ranks.

    Raises:
        MismatchError: It could between two episodes, when it has given what the job has consumed and no more.
    """
    if not is_batches(getattr(obj, "batch_sampler", None)):
        return False
    if not isinstance(state, dict) or not isinstance(state.get(TAG), list) or len(state[TAG]) == data_ranks:
        return False
    if mid_episode:
        raise MismatchError(
            f"{name!r} was saved in mid-episode on {len(state[TAG])} data-parallel ranks, and this run has "
            f"{data_ranks}: prompts that it gave would come again. Start with as many ranks, or go back to a point "
            "between two episodes"
        )
    return True


def check_workers(name: str, obj: Any, state: Any) -> None:
    """Raises MismatchError if `state` of a StatefulDataLoader was saved with another number of workers.

    What each of them had read ahead is of it alone; torchdata itself asserts, when the first batch is drawn.
    """
    saved = _workers_of(state)
    if saved is not None and saved != obj.num_workers:
        raise MismatchError(
            f"{name!r} was saved with num_workers={saved} and has num_workers={obj.num_workers}: each worker holds "
            f"what it read ahead, and none could go on. Start with num_workers={saved} (--num-workers {saved})"
        )


def _workers_of(state: Any) -> int | None:
    """As torchdata has it; None where the state is none that we know."""
    if not isinstance(state, dict):
        return None
    snapshot = state.get("_snapshot")
    main = snapshot.get("_main_snapshot") if isinstance(snapshot, dict) else None
    workers = main.get("_num_workers") if isinstance(main, dict) else None
    if isinstance(workers, int):
        return workers
    return 0 if "_num_yielded" in state else None


def is_batches(obj: object) -> bool:
    """Whether `obj` is what `EpisodeSampler.for_rank` gave."""
    module = sys.modules.get("megatron_resume.data.batches")
    return module is not None and isinstance(obj, module.RankBatches)


def is_loader(obj: object) -> bool:
    """Whether `obj` is one that is known to be of a single rank: torchdata's StatefulDataLoader."""
    module = sys.modules.get("torchdata.stateful_dataloader")
    return module is not None and isinstance(obj, module.StatefulDataLoader)
