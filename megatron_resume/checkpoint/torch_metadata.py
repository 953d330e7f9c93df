"""Names and shapes of tensors from the `.metadata` that torch writes beside them, a pickle of which nothing is run."""

import re
from pathlib import Path
from typing import Any

from ..errors import DamagedError
from ..shown import shown_in_line
from . import object_pickle
from .contents import MODEL, OPTIMIZER, Contents, describe
from .object_pickle import Noted
from .records import read_bytes

FILE = ".metadata"
MAX_BYTES = 1 << 30

_MODULES = r"torch|torch\.serialization|torch\.distributed\.checkpoint\.\w+|megatron\.core\.dist_checkpointing\..+"
_MODULES += r"|nvidia_resiliency_ext\..+|pathlib(\._local)?|collections|copyreg|_codecs"
_OF_OPTIMIZER = r"(chained_\d+\.)?optimizer\."


def contents_of(folder: Path) -> Contents:
    """What the model checkpoint in `folder` holds.

    Raises:
        DamagedError: Its metadata are not there, or not as torch writes them.
    """
    path = folder / FILE
    return contents_in(read_bytes(path, MAX_BYTES), path)


def contents_in(data: bytes, what: object) -> Contents:
    """What metadata say that were read as `data`; `what` names them in the error.

    Raises:
        DamagedError: They are not as torch writes them.
    """
    metadata = object_pickle.load(data, _MODULES, what)
    try:
        return _contents(metadata)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise DamagedError(f"{what} is not metadata of torch: {shown_in_line(str(error))}") from error


def _contents(metadata: Any) -> Contents:
    if not isinstance(metadata, Noted) or metadata.name != "Metadata":
        raise ValueError("it holds something else")
    contents: Contents = {MODEL: {}, OPTIMIZER: {}}
    for key, entry in metadata.state["state_dict_metadata"].items():
        part = OPTIMIZER if re.match(_OF_OPTIMIZER, key) else MODEL
        if entry.name == "TensorStorageMetadata":
            contents[part][key] = describe("tensor", _dtype(entry), entry.state["size"].given[0])
        else:  # bytes; of a sharded object the key says which shard
            contents[part][key] = "object"
    return contents


def _dtype(entry: Noted) -> str:
    """Properties of a tensor have a state of their own, with the dtype first."""
    return str(entry.state["properties"].state[0].name)
