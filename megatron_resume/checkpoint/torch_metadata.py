"""Names and shapes of tensors from the `.metadata` that torch writes beside them, read so that nothing in it can run.

It is a pickle. Every class that it may name is replaced by one that only keeps what it is given, so no code but that of
this module is imported or called, whatever the file says.
"""

import io
import pickle
import re
from pathlib import Path
from typing import Any

from ..errors import DamagedError
from .contents import MODEL, OPTIMIZER, Contents, describe
from .records import read_bytes

FILE = ".metadata"
MAX_BYTES = 1 << 30

_MODULES = r"torch|torch\.serialization|torch\.distributed\.checkpoint\.\w+|megatron\.core\.dist_checkpointing\..+"
_MODULES += r"|nvidia_resiliency_ext\..+|pathlib(\._local)?"
_UNREADABLE = (
    *(ValueError, TypeError, KeyError, AttributeError, IndexError, EOFError),
    *(pickle.UnpicklingError, RecursionError, MemoryError, OverflowError),
)
_OF_OPTIMIZER = r"(chained_\d+\.)?optimizer\."


class _Kept:
    """Stands for an object of the class `name`: what it was made with, and its state."""

    name = ""

    def __init__(self, *given: Any, **_: Any) -> None:
        self.given = given

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __hash__(self) -> int:
        return id(self)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if not re.fullmatch(_MODULES, module):
            raise ValueError(f"it names {module}.{name}")
        return type(name, (_Kept,), {"name": name})

    def persistent_load(self, pid: Any) -> Any:
        raise ValueError("it refers to something outside")


def contents_of(folder: Path) -> Contents:
    """What the model checkpoint in `folder` holds.

    Raises:
        DamagedError: Its metadata are not there, or not as torch writes them.
    """
    path = folder / FILE
    try:
        metadata = _Unpickler(io.BytesIO(read_bytes(path, MAX_BYTES))).load()
        return _contents(metadata)
    except _UNREADABLE as error:
        raise DamagedError(f"{path} is not metadata of torch: {error}") from error


def _contents(metadata: Any) -> Contents:
    if not isinstance(metadata, _Kept) or metadata.name != "Metadata":
        raise ValueError("it holds something else")
    contents: Contents = {MODEL: {}, OPTIMIZER: {}}
    for key, entry in metadata.state["state_dict_metadata"].items():
        part = OPTIMIZER if re.match(_OF_OPTIMIZER, key) else MODEL
        if entry.name == "TensorStorageMetadata":
            contents[part][str(key)] = describe("tensor", _dtype(entry), entry.state["size"].given[0])
        else:  # bytes; of a sharded object the key says which shard
            contents[part][str(key)] = "object"
    return contents


def _dtype(entry: _Kept) -> str:
    """Properties of a tensor have a state of their own, dtype first; a dtype is named as if it were a class."""
    properties = entry.state["properties"]
    first = properties.state[0]
    return str(getattr(first, "name", first))
