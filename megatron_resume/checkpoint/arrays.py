"""Tracked state as JSON beside a safetensors file: values nest freely, arrays are named in them.

JSON knows fewer values than Python. What it lacks is written as an object with one `$` key:
`{"$array": name}`, `{"$tensor": name, ...}`, `{"$tuple": [...]}`, `{"$float": "nan"}`,
`{"$bytes": base64}`, `{"$items": [[key, value], ...]}` for dicts whose keys are not plain strings.
"""

import base64
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import ConfigError, DamagedError

Arrays = dict[str, np.ndarray[Any, Any]]
TensorToArray = Callable[[Any], tuple[np.ndarray[Any, Any], dict[str, Any]] | None]
ArrayToTensor = Callable[[np.ndarray[Any, Any], dict[str, Any]], Any]
_DTYPES = frozenset(["bool", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"])


def dump(arrays: Arrays) -> bytes:
    import safetensors.numpy as st  # here, for it takes 2 of the 50 ms that our import may

    data: bytes = st.save(arrays)
    return data


def load(data: bytes, what: object) -> Arrays:
    """The arrays in a safetensors file.

    Raises:
        DamagedError: It is damaged.
    """
    import safetensors.numpy as st

    try:
        arrays: Arrays = st.load(data)
        return arrays
    except Exception as error:  # safetensors raises its own, numpy's and KeyErrors on damage
        raise DamagedError(f"{what} is damaged: {error}") from error


def pack(value: Any, name: str, arrays: Arrays, tensor: TensorToArray) -> Any:
    """`value` as plain JSON; its arrays go into `arrays` under names that begin with `name`.

    Args:
        tensor: turns a tensor into an array and what is needed to turn it back; None for anything else.

    Raises:
        ConfigError: A value is of a type that cannot be stored.
    """
    if value is None or (isinstance(value, bool | int | str) and type(value) in (bool, int, str)):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, np.generic):
        return {"$array": _keep(np.asarray(value), name, arrays), "scalar": True}
    if isinstance(value, np.ndarray):
        return {"$array": _keep(value, name, arrays)}
    if type(value) is list:
        return [pack(item, f"{name}/{i}", arrays, tensor) for i, item in enumerate(value)]
    if type(value) is tuple:
        return {"$tuple": [pack(item, f"{name}/{i}", arrays, tensor) for i, item in enumerate(value)]}
    if type(value) is bytes:
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        return _pack_mapping(value, name, arrays, tensor)
    as_array = tensor(value)
    if as_array is not None:
        array, meta = as_array
        return {"$tensor": _keep(array, name, arrays), **meta}
    raise ConfigError(
        f"{name} is a {type(value).__module__}.{type(value).__qualname__}, which cannot be stored without "
        "pickle; its state_dict() may hold None, bool, int, float, str, bytes, list, tuple, dict, numpy "
        "arrays and tensors"
    )


def _keep(value: np.ndarray[Any, Any], name: str, arrays: Arrays) -> str:
    """Add `value` to `arrays`; returns its name there, which is `name` unless that is taken."""
    free = name if name not in arrays else f"{name}#{len(arrays)}"
    arrays[free] = _storable(value, name)
    return free


def _storable(value: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    value = np.ascontiguousarray(value).reshape(value.shape)
    little = value.dtype.newbyteorder("<")
    if little.str[1:] not in _DTYPES and value.dtype != bool:
        raise ConfigError(f"{name} is an array of dtype {value.dtype}; store booleans, integers or floats")
    return value.astype(little, copy=True)  # a copy: training goes on while the writer writes


def _pack_mapping(value: Mapping[Any, Any], name: str, arrays: Arrays, tensor: TensorToArray) -> Any:
    if all(type(key) is str and not key.startswith("$") for key in value):
        return {key: pack(item, f"{name}/{key}", arrays, tensor) for key, item in value.items()}
    items = []
    for i, (key, item) in enumerate(value.items()):
        pair = [pack(key, f"{name}/key{i}", arrays, tensor), pack(item, f"{name}/{i}", arrays, tensor)]
        items.append(pair)
    return {"$items": items}


def renamed(value: Any, names: Mapping[str, str]) -> Any:
    """What `pack` made, with its arrays under other names: old -> new."""
    if isinstance(value, list):
        return [renamed(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: names[item] if key in ("$array", "$tensor") else renamed(item, names) for key, item in value.items()}


def unpack(value: Any, arrays: Arrays, tensor: ArrayToTensor) -> Any:
    """What `pack` was given.

    Raises:
        DamagedError: `value` names an array that is not there, or a tag that is not known.
    """
    try:
        return _unpack(value, arrays, tensor)
    except RecursionError as error:
        raise DamagedError("tracked state is nested too deep") from error


def _unpack(value: Any, arrays: Arrays, tensor: ArrayToTensor) -> Any:
    if isinstance(value, list):
        return [_unpack(item, arrays, tensor) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next((key for key in value if key.startswith("$")), None)
    if tag is None:
        return {key: _unpack(item, arrays, tensor) for key, item in value.items()}
    return _unpack_tagged(tag, value, arrays, tensor)


def _unpack_tagged(tag: str, value: dict[str, Any], arrays: Arrays, tensor: ArrayToTensor) -> Any:
    content = value[tag]
    try:
        if tag == "$array":
            return arrays[content][()] if value.get("scalar") else arrays[content]
        if tag == "$tensor":
            return tensor(arrays[content], value)
        if tag == "$tuple":
            return tuple(_unpack(item, arrays, tensor) for item in content)
        if tag == "$float":
            return float(content)
        if tag == "$bytes":
            return base64.b64decode(content)
        if tag == "$items":
            return {_unpack(k, arrays, tensor): _unpack(v, arrays, tensor) for k, v in content}
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:  # torch raises RuntimeErrors
        raise DamagedError(f"tracked state is damaged at {value!a:.200}: {str(error)!a:.200}") from error
    raise DamagedError(f"tracked state holds {tag!a}, which this release does not know")
