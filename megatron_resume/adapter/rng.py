"""The random states of a rank: Python's, numpy's, torch's and Megatron's tracker's.

Each model checkpoint of Megatron holds these too, but of one data-parallel rank only; and when a
process loads several models the last load wins. So the data checkpoint carries those of every rank.
"""

import random
from typing import Any

import msgspec
import numpy as np
import torch

from ..checkpoint.arrays import Arrays
from ..checkpoint.records import Rng
from . import ranks

TRACKER = "tracker."  # prefix of the states in Megatron's tracker of CUDA random states
GENERATORS = {
    "python": "Python's random",
    "python_gauss": "Python's random",
    "numpy": "numpy",
    "numpy_position": "numpy",
}
GENERATORS |= {"torch": "torch", "cuda": "CUDA", "tracker": "Megatron's tracker"}  # part of a state -> its generator


class Captured(msgspec.Struct, frozen=True):
    """The states of a process at one moment. Kept as they came: training waits until they are captured."""

    python: tuple[Any, ...]  # of random.getstate
    numpy: tuple[Any, ...]  # of numpy.random.get_state
    tensors: dict[str, torch.Tensor]

    def arrays(self) -> Arrays:
        """The same names, shapes and types on every rank."""
        _, python, gauss = self.python
        _, keys, position, has_gauss, cached = self.numpy
        return {
            "python": np.fromiter(python, np.uint32, len(python)),
            "python_gauss": np.array([gauss is not None, gauss or 0.0], dtype=np.float64),
            "numpy": np.asarray(keys, dtype=np.uint32),
            "numpy_position": np.array([position, has_gauss, cached], dtype=np.float64),
            **{name: tensor.numpy(force=True) for name, tensor in self.tensors.items()},
        }

    def pack(self) -> bytes:
        """For `unpack`; safetensors takes eight times as long."""
        arrays = self.arrays().items()
        return msgspec.msgpack.encode({name: (array.dtype.str, memoryview(array)) for name, array in arrays})


def unpack(packed: bytes) -> Arrays:
    states = msgspec.msgpack.decode(packed, type=dict[str, tuple[str, bytes]])
    return {name: np.frombuffer(content, dtype) for name, (dtype, content) in states.items()}


def capture() -> Captured:
    """The states of this process, now."""
    tensors = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    # Megatron's tracker never changes a state in place.
    tensors.update({TRACKER + name: state for name, state in _tracker_states().items()})
    return Captured(random.getstate(), np.random.get_state(), tensors)


def restore(states: Arrays) -> None:
    """Put the states of this process back to what was captured."""
    has_gauss, gauss = states["python_gauss"]
    random.setstate((3, tuple(int(word) for word in states["python"]), float(gauss) if has_gauss else None))
    position, has_cached, cached = states["numpy_position"]
    np.random.set_state(("MT19937", states["numpy"], int(position), int(has_cached), float(cached)))
    torch.set_rng_state(_tensor(states["torch"]))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(_tensor(states["cuda"]))
    _set_tracker_states({n[len(TRACKER) :]: _tensor(s) for n, s in states.items() if n.startswith(TRACKER)})


def merge(packed: list[bytes], layout: dict[str, int]) -> tuple[Rng, Arrays]:
    """The states of all ranks, in rank order, for the data checkpoint."""
    distinct = {part: i for i, part in enumerate(dict.fromkeys(packed))}
    arrays = {f"rng/{i}/{name}": array for part, i in distinct.items() for name, array in unpack(part).items()}
    return Rng(state_of_rank=tuple(distinct[part] for part in packed), layout=layout), arrays


def states_of(rank: int, rng: Rng, arrays: Arrays) -> Arrays | None:
    """The saved states for `rank`; None when the run had another parallel layout."""
    if rng.layout != layout():
        return None
    prefix = f"rng/{rng.state_of_rank[rank]}/"
    return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}


def differing(saved: Arrays, now: Arrays) -> tuple[str, ...]:
    """Names of the generators whose states differ, as a person knows them."""
    names = {name: GENERATORS.get(name.partition(".")[0], name) for name in saved.keys() & now.keys()}
    differ = {names[name] for name in names if not np.array_equal(saved[name], now[name])}
    return tuple(name for name in dict.fromkeys(GENERATORS.values()) if name in differ)


def layout() -> dict[str, int]:
    """Number of ranks and how Megatron divides them."""
    from megatron.core import parallel_state as mpu

    sizes = {"ranks": torch.distributed.get_world_size() if ranks.connected() else 1}
    if mpu.model_parallel_is_initialized():
        sizes["tensor"] = mpu.get_tensor_model_parallel_world_size()
        sizes["pipeline"] = mpu.get_pipeline_model_parallel_world_size()
        sizes["data"] = mpu.get_data_parallel_world_size()
    return sizes


def _tensor(state: np.ndarray[Any, Any]) -> torch.Tensor:
    return torch.from_numpy(np.array(state, dtype=np.uint8))


def _tracker_states() -> dict[str, torch.Tensor]:
    from megatron.core import tensor_parallel

    # Under CUDA graphs the tracker holds generators instead of tensors.
    states = tensor_parallel.get_cuda_rng_tracker().get_states()
    return {name: s if isinstance(s, torch.Tensor) else s.get_state() for name, s in sorted(states.items())}


def _set_tracker_states(states: dict[str, torch.Tensor]) -> None:
    from megatron.core import tensor_parallel

    tracker = tensor_parallel.get_cuda_rng_tracker()
    now = tracker.get_states()
    generators = {name: s for name, s in now.items() if not isinstance(s, torch.Tensor)}
    for name, generator in generators.items():
        generator.set_state(states[name])
    if states and not generators:
        tracker.set_states(states)
