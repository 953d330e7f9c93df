"""Replace torch.cuda by the CPU for the whole process, so that unmodified Megatron trains without a GPU.

`install()` must run before Megatron is imported: default arguments such as
`device=torch.cuda.current_device()` are taken at import time. Device, stream, RNG and memory
functions get CPU versions, and 'cuda' device arguments become 'cpu' through a TorchFunctionMode.
Nothing of Megatron is touched here; see `megatron_gaps` for what it lacks without a GPU stack.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

# Megatron compiles its fused kernels with torch.compile; on small CPU models that only costs seconds.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
# Threads of two ranks on two cores fight each other, and their number changes the order of sums.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Megatron asks for this one with tensor parallelism.
os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")

import torch
from torch.overrides import TorchFunctionMode

CPU = torch.device("cpu")

_installed: contextlib.ExitStack | None = None


def install() -> None:
    """Put the stand-in in place for the rest of this process; a second call does nothing."""
    global _installed
    if _installed is not None:
        return
    torch.set_num_threads(1)
    stack = contextlib.ExitStack()
    for owner, name, value in _replacements():
        stack.enter_context(mock.patch.object(owner, name, value, create=True))
    stack.enter_context(_CudaMeansCpu())
    _installed = stack


def installed() -> bool:
    """Whether this process pretends that its CPU is a GPU."""
    return _installed is not None


class _Event:
    """A CUDA event on a device where everything has already happened."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...
    def record(self, *args: object) -> None: ...
    def wait(self, *args: object) -> None: ...
    def synchronize(self) -> None: ...

    def query(self) -> bool:
        return True

    def elapsed_time(self, other: object) -> float:
        return 0.0


class _Stream:
    """A CUDA stream on a device that runs one thing after the other anyway."""

    cuda_stream = 0
    device = CPU

    def __init__(self, *args: object, **kwargs: object) -> None: ...
    def wait_stream(self, *args: object) -> None: ...
    def wait_event(self, *args: object) -> None: ...
    def synchronize(self) -> None: ...

    def record_event(self, *args: object) -> _Event:
        return _Event()

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, *args: object) -> None: ...


class _Generators(tuple[torch.Generator, ...]):
    """One generator for every device index: the CUDA generator is the CPU's."""

    def __getitem__(self, index: Any) -> Any:
        return torch.default_generator


_CONCERNED = frozenset([torch.device, torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.type])  # without keywords, too


class _CudaMeansCpu(TorchFunctionMode):
    """Turn 'cuda' devices in the arguments of torch functions into 'cpu'."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not kwargs and func not in _CONCERNED:
            return func(*args)
        kwargs = dict(kwargs or {})
        to_cpu = _is_copy_to_cpu(func, args, kwargs)
        if func is torch.device and args and str(args[0]).startswith("cuda"):
            return CPU
        if kwargs.get("device") is not None:
            kwargs["device"] = _as_cpu(kwargs["device"])
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False
        if func is torch.Tensor.to:
            args = (args[0], *(_as_cpu(arg) for arg in args[1:]))
        out = func(*args, **kwargs)
        if to_cpu and out is args[0]:
            # From a GPU this is a fresh copy, and asynchronous saves rely on it: without the copy
            # their writer would store weights that training has already changed.
            return out.clone() if out.requires_grad else out.detach().clone()
        if func is torch.Tensor.type and isinstance(out, str):
            # Megatron's optimizers recognise their parameters by 'torch.cuda.FloatTensor'.
            return out.replace("torch.", "torch.cuda.", 1)
        return out


def _is_copy_to_cpu(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if func is torch.Tensor.cpu:
        return True
    if func is not torch.Tensor.to:
        return False
    named = [str(arg) for arg in args[1:] if isinstance(arg, str | torch.device)]
    return "cpu" in named or str(kwargs.get("device")) == "cpu"


def _as_cpu(device: Any) -> Any:
    if isinstance(device, torch.device):
        return CPU if device.type == "cuda" else device
    if isinstance(device, str) and (device == "cuda" or device.startswith("cuda:")):
        return CPU
    return device


def _nothing() -> Callable[..., None]:
    # A new function for each name: torch._dynamo's tables refuse one object under two names.
    return lambda *args, **kwargs: None


def _constant(value: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: value


def _replacements() -> Iterator[tuple[Any, str, Any]]:
    yield from _devices()
    yield from _streams()
    yield from _random_numbers()
    yield from _tensors()


def _devices() -> Iterator[tuple[Any, str, Any]]:
    cuda = torch.cuda
    yield cuda, "is_available", lambda: True  # Megatron asserts it
    # More than 0, or Megatron does not initialise its parallel groups.
    yield cuda, "device_count", lambda: int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    yield cuda, "current_device", lambda: CPU
    yield torch.accelerator, "is_available", _constant(False)
    yield torch.accelerator, "current_accelerator", _constant(None)
    yield cuda, "get_device_capability", _constant((9, 0))
    yield cuda, "get_device_name", _constant("cpu")
    properties = mock.Mock(total_memory=1 << 34, multi_processor_count=1, major=9, minor=0)
    yield cuda, "get_device_properties", _constant(properties)
    yield cuda, "is_initialized", lambda: True
    for name in ("set_device", "synchronize", "empty_cache", "init", "_lazy_init"):
        yield cuda, name, _nothing()
    yield cuda, "reset_peak_memory_stats", _nothing()
    for name in ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved"):
        yield cuda, name, _constant(0)
    yield cuda, "memory_stats", lambda *args, **kwargs: {}
    yield cuda, "mem_get_info", _constant((1 << 34, 1 << 34))


def _streams() -> Iterator[tuple[Any, str, Any]]:
    cuda = torch.cuda
    yield cuda, "Stream", _Stream
    yield cuda, "Event", _Event
    yield cuda, "stream", lambda stream: contextlib.nullcontext()
    yield cuda, "device", lambda device: contextlib.nullcontext()
    yield cuda, "current_stream", lambda *args: _Stream()
    yield cuda, "default_stream", lambda *args: _Stream()
    yield cuda, "set_stream", _nothing()
    yield cuda, "is_current_stream_capturing", lambda: False
    yield cuda.nvtx, "range_push", _nothing()
    yield cuda.nvtx, "range_pop", _nothing()


def _random_numbers() -> Iterator[tuple[Any, str, Any]]:
    for module in (torch.cuda, torch.cuda.random):
        yield module, "get_rng_state", lambda *args, **kwargs: torch.get_rng_state()
        yield module, "set_rng_state", lambda state, *args, **kwargs: torch.set_rng_state(state.cpu())
        yield module, "manual_seed", lambda seed: torch.manual_seed(seed)
        yield module, "manual_seed_all", _nothing()
    # torch queues calls until CUDA is initialised, which here is never: the state that Megatron's
    # RNG tracker sets would wait in that queue for ever.
    yield torch.cuda, "_lazy_call", lambda call, **kwargs: call()
    yield torch.cuda, "default_generators", _Generators()


def _tensors() -> Iterator[tuple[Any, str, Any]]:
    yield torch.Tensor, "cuda", lambda self, *args, **kwargs: self
    yield torch.Tensor, "pin_memory", lambda self, *args, **kwargs: self
    yield torch.nn.Module, "cuda", lambda self, *args, **kwargs: self
    for kind in ("Float", "Int", "Long", "Double", "Half", "Bool", "Byte", "BFloat16"):
        yield torch.cuda, f"{kind}Tensor", getattr(torch, f"{kind}Tensor")
