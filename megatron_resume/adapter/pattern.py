"""A pattern in tensors that are to be loaded: what still holds it afterwards was not.

It is one NaN among millions, written and looked for as an integer, so that no NaN of the job's own is taken for it.
What is no plain floating point tensor (integers, fp8, quantized, sharded by torch) is left alone.
"""

from collections.abc import Iterable, Iterator

import torch

_PATTERNS = {
    torch.float64: (torch.int64, 0x7FF8_5EED_0BAD_10AD),
    torch.float32: (torch.int32, 0x7FD5_EED5),
    torch.bfloat16: (torch.int16, 0x7FD5),
    torch.float16: (torch.int16, 0x7E5D),
}
_BLOCK = 1 << 24  # elements looked at in one step: no second copy of a model is made


def fill(tensors: Iterable[torch.Tensor]) -> None:
    """Overwrite every element."""
    with torch.no_grad():
        for tensor in filter(_can_hold, tensors):
            kind, pattern = _PATTERNS[tensor.dtype]
            tensor.detach().view(kind).fill_(pattern)


def left_in(tensors: Iterable[tuple[str, torch.Tensor]]) -> list[str]:
    """Names of those with an element that still holds it; a device is asked once, not for each tensor."""
    by_device: dict[torch.device, list[tuple[str, torch.Tensor]]] = {}
    seen = set()  # a weight may be the optimizer's, too
    for name, tensor in tensors:
        if _can_hold(tensor) and id(tensor) not in seen:
            seen.add(id(tensor))
            by_device.setdefault(tensor.device, []).append((name, _flag(tensor)))
    return [name for of_device in by_device.values() for name in _set(of_device)]


def _set(flags: list[tuple[str, torch.Tensor]]) -> Iterator[str]:
    found = torch.stack([flag for _, flag in flags]).cpu().tolist()
    return (name for (name, _), is_set in zip(flags, found, strict=True) if is_set)


def _can_hold(tensor: torch.Tensor) -> bool:
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)
    return plain and tensor.dtype in _PATTERNS and tensor.numel() > 0 and tensor.device.type != "meta"


def _flag(tensor: torch.Tensor) -> torch.Tensor:
    kind, pattern = _PATTERNS[tensor.dtype]
    bits = tensor.detach().view(kind)
    if not bits.is_contiguous():
        return (bits == pattern).any()
    found = torch.zeros((), dtype=torch.bool, device=bits.device)
    for block in bits.view(-1).split(_BLOCK):
        found |= (block == pattern).any()
    return found
