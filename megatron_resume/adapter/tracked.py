"""Objects whose state travels in the data checkpoint, by name: of the job, or of each rank."""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import numpy as np
import torch

from ..checkpoint import arrays as codec
from ..checkpoint.arrays import Arrays
from ..checkpoint.nesting import is_deeper
from ..checkpoint.records import MAX_NESTING
from ..errors import ConfigError, MismatchError
from . import loaders, ranks, rng, sharing
from .orders import Order, order_of


class Stateful(Protocol):
    """What can be tracked."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any) -> object: ...


class Tracked(msgspec.Struct):
    """The tracked objects of this process by name."""

    objects: dict[str, Any] = {}
    orders: dict[str, Order] = {}  # of these objects: what follows the job's consumed samples
    per_rank: set[str] = set()  # names of what each rank has its own of
    experience: set[str] = set()  # names that hold a running episode's experience

    def add(
        self, name: str, obj: Any, *, experience: bool = False, per_rank: bool = False, own_position: bool = False
    ) -> None:
        """Raises ConfigError for a name taken by another object, or for state that cannot be stored."""
        if self.objects.get(name, obj) is not obj:
            raise ConfigError(f"track({name!r}, ...) was called with another object before; use another name")
        if loaders.is_batches(obj):
            raise ConfigError(
                f"track({name!r}, ...) got the batches of a rank, which a DataLoader draws ahead of the training: "
                "those would be lost. Track the EpisodeSampler that they are of, or a StatefulDataLoader over them"
            )
        order = None if own_position else order_of(obj)
        per_rank = per_rank or loaders.is_loader(obj)
        if order is None and not (hasattr(obj, "state_dict") and hasattr(obj, "load_state_dict")):
            raise ConfigError(
                f"track({name!r}, ...) got a {type(obj).__qualname__}, which has no state_dict and "
                "load_state_dict; give it both"
            )
        if order is not None:
            self.orders[name] = order
            if ranks.rank() == 0:  # which saves it; what the state is made of may take long to read
                _check_storable(name, order.state_at(0))
        elif not per_rank:  # to ask a loader for its state may start its workers
            _check_storable(name, obj.state_dict())  # before any work, not at the first save
        self.objects[name] = obj
        if per_rank:
            self.per_rank.add(name)
        if experience:
            self.experience.add(name)

    def capture(self, consumed_samples: int) -> tuple[dict[str, Any], Arrays]:
        """The state of what all ranks share, now, as JSON and arrays that training no longer changes."""
        arrays: Arrays = {}
        shared = {n: o for n, o in self.objects.items() if n not in self.per_rank}
        states = {
            name: self.orders[name].state_at(consumed_samples) if name in self.orders else obj.state_dict()
            for name, obj in shared.items()
        }
        return {n: codec.pack(state, f"tracked/{n}", arrays, _to_array) for n, state in states.items()}, arrays

    def capture_of_rank(self) -> loaders.Captured:
        """The state of what this rank has its own of, now."""
        states = {name: self.objects[name].state_dict() for name in sorted(self.per_rank)}
        packed = {name: loaders.capture(name, state, _to_array) for name, state in states.items()}
        return loaders.Captured(ranks.data_parallel()[0], packed)

    def capture_shared(self) -> sharing.Captured:
        """The state of what this rank shares with all others, now; not of orders, which follow from arguments."""
        shared = {n: o for n, o in self.objects.items() if n not in self.per_rank and n not in self.orders}
        arrays: Arrays = {}
        states = {n: codec.pack(o.state_dict(), f"tracked/{n}", arrays, _to_array) for n, o in shared.items()}
        return sharing.Captured(states, arrays)

    def proofs(self, consumed_samples: int) -> dict[str, Callable[[], str]]:
        """What proves the orders at this position, by name."""
        found = {name: order.proof_at(consumed_samples) for name, order in self.orders.items()}
        return {name: proof for name, proof in found.items() if proof is not None}

    def move_to(self, consumed_samples: int) -> None:
        """Let the orders follow, between two episodes."""
        for order in self.orders.values():
            order.move_to(consumed_samples)

    def load(
        self,
        name: str,
        states: dict[str, Any],
        arrays: Arrays,
        where: object,
        *,
        consumed_samples: int = 0,
        mid_episode: bool = False,
        on_dataset_change: str = "refuse",
    ) -> str | None:
        """Give the object `name` its saved state; what changed in the dataset since, in one line.

        Args:
            name: of what was added.
            states: that were saved, by name.
            arrays: of these.
            where: they are from, for people.
            consumed_samples: that the job had come to.
            mid_episode: what of the running episode was drawn is not among them.
            on_dataset_change: what to do where the dataset is not the one that was saved with.

        Raises:
            DamagedError: The state is not what was saved.
            MismatchError: The point holds no state of this name, or not one that this object could go on with.
        """
        if name not in states:
            raise MismatchError(
                f"{where} holds no state named {name!r} (it holds {', '.join(sorted(states)) or 'none'}); "
                "track it under its old name, or start fresh with --no-enable-resume-training"
            )
        state, obj = states[name], self.objects[name]
        if name in self.per_rank:
            if loaders.is_loader(obj):
                state = loaders.of_data_ranks(state, rng.layout())
            if loaders.reshards(name, obj, state, ranks.data_parallel()[1], mid_episode=mid_episode):
                obj.batch_sampler.load_state_dict({"consumed_samples": consumed_samples})
                return f"the loader was of {len(state[loaders.TAG])} ranks: its EpisodeSampler goes on without it"
            state = loaders.state_of(name, state, *ranks.data_parallel(), rng.layout())
            if loaders.is_loader(obj):
                loaders.check_workers(name, obj, state)
        elif loaders.is_of_ranks(state):
            raise MismatchError(
                f"{name!r} was saved as one state for each rank, and now all share one; track what was tracked, or "
                "track it under another name"
            )
        unpacked = codec.unpack(state, arrays, _to_tensor)
        if name in self.orders:
            return self.orders[name].restore(unpacked, on_dataset_change)
        obj.load_state_dict(unpacked)
        return None


def _check_storable(name: str, state: Any) -> None:
    """Raises ConfigError for state that holds what cannot be stored, or so deep that nobody could restore it."""
    try:
        deep = is_deeper({name: codec.pack(state, f"tracked/{name}", {}, _to_array)}, MAX_NESTING)
    except RecursionError:
        deep = True
    if deep:
        raise ConfigError(f"track({name!r}, ...): its state is nested about {MAX_NESTING} deep or more; flatten it")


def _to_array(value: Any) -> tuple[np.ndarray[Any, Any], dict[str, Any]] | None:
    if not isinstance(value, torch.Tensor):
        return None
    flat = value.detach().to("cpu", copy=True).contiguous().reshape(-1)  # bfloat16 and float8 are unknown to numpy
    meta = {"dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape)}
    return flat.view(torch.uint8).numpy(), meta


def _to_tensor(array: np.ndarray[Any, Any], meta: dict[str, Any]) -> torch.Tensor:
    dtype = getattr(torch, str(meta["dtype"]), None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{meta['dtype']!r} is no dtype")
    return torch.from_numpy(array.copy()).view(dtype).reshape(meta["shape"])
