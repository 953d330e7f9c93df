"""Objects whose state travels in the data checkpoint: anything with state_dict and load_state_dict."""

from typing import Any, Protocol

import msgspec
import numpy as np
import torch

from ..checkpoint import arrays as codec
from ..checkpoint.arrays import Arrays
from ..checkpoint.nesting import is_deeper
from ..checkpoint.records import MAX_NESTING
from ..errors import ConfigError, MismatchError


class Stateful(Protocol):
    """What can be tracked."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any) -> object: ...


class Tracked(msgspec.Struct):
    """The tracked objects of this process by name."""

    objects: dict[str, Stateful] = {}
    experience: set[str] = set()  # names that hold a running episode's experience

    def add(self, name: str, obj: Stateful, *, experience: bool) -> None:
        """Raises ConfigError for a name taken by another object, or for state that cannot be stored."""
        if not (hasattr(obj, "state_dict") and hasattr(obj, "load_state_dict")):
            raise ConfigError(
                f"track({name!r}, ...) got a {type(obj).__qualname__}, which has no state_dict and "
                "load_state_dict; give it both"
            )
        if self.objects.get(name, obj) is not obj:
            raise ConfigError(f"track({name!r}, ...) was called with another object before; use another name")
        _check_storable(name, obj.state_dict())  # before any work, not at the first save
        self.objects[name] = obj
        if experience:
            self.experience.add(name)

    def capture(self) -> tuple[dict[str, Any], Arrays]:
        """The state of all objects now, as JSON and arrays that training no longer changes."""
        arrays: Arrays = {}
        states = {n: codec.pack(o.state_dict(), f"tracked/{n}", arrays, _to_array) for n, o in self.objects.items()}
        return states, arrays

    def load(self, name: str, states: dict[str, Any], arrays: Arrays, where: object) -> None:
        """Give the object `name` its saved state.

        Raises:
            MismatchError: The point holds no state of this name.
        """
        if name not in states:
            raise MismatchError(
                f"{where} holds no state named {name!r} (it holds {', '.join(sorted(states)) or 'none'}); "
                "track it under its old name, or start fresh with --no-enable-resume-training"
            )
        self.objects[name].load_state_dict(codec.unpack(states[name], arrays, _to_tensor))


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
