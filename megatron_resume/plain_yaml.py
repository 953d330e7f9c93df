"""YAML that people wrote, as plain values: of bounded size, also with all aliases unfolded, and without keys twice."""

import os
import stat
from typing import Any

from .errors import ConfigError

MAX_BYTES = 1 << 20
MAX_VALUES = 100_000  # with all aliases unfolded
MAX_NUMBER = 100  # characters; to the base 60 a number takes the square of its length to read


def load_yaml(path: str, *, ours: str | None = None) -> object:
    """What the file at `path` holds.

    Args:
        ours: a section. If one is named, keys stand once at the top and in it; the rest is for others to read.

    Raises:
        OSError: It cannot be read.
        ConfigError: It is no plain file, too large, no YAML, or holds a key twice; the message has no path.
    """
    import yaml  # 40 ms, and most processes read none

    text = _text_of(path)
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, ours)
        content: object = loader.construct_document(node)
    except RecursionError:
        raise ConfigError("is nested too deeply to be read; flatten it") from None
    # The last three by values that are not of the type that their tag names, as `!!bool x`.
    except (ValueError, yaml.YAMLError, LookupError, AttributeError, TypeError) as error:
        raise ConfigError(f"cannot be read as YAML ({error}); correct the file") from error
    return content


def _text_of(path: str) -> str:
    # A link is followed: the person may name one. A FIFO would be waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ConfigError("is no file; name a YAML file")
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ConfigError(f"has more than {MAX_BYTES} bytes; no such file that we read needs that many")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot be read as YAML ({error}); write it in UTF-8") from None


def _check(root: Any, ours: str | None) -> None:
    """Raises ConfigError before anything is unfolded."""
    nodes: dict[int, Any] = {}
    if _size(root, {}, set(), nodes) > MAX_VALUES:
        raise ConfigError(f"holds more than {MAX_VALUES} values, once its aliases are unfolded; write less")
    if ours is not None:
        parts = root.value if root.id == "mapping" else []
        nodes = {id(one): one for one in (root, *(value for key, value in parts if key.value == ours))}
    for node in nodes.values():
        if node.id == "mapping":
            _check_keys(node)


def _size(node: Any, known: dict[int, int], above: set[int], nodes: dict[int, Any]) -> int:
    """How many values it is; `known` has those of other nodes by identity, `above` are those that it lies in.

    `nodes` becomes all that were seen.
    """
    if id(node) in above:
        raise ConfigError(f"{_line(node)} holds itself by an alias; write it out")
    if id(node) in known:
        return known[id(node)]
    above.add(id(node))
    nodes[id(node)] = node
    children: list[Any] = []
    if node.id == "scalar":
        if len(node.value) > MAX_NUMBER and node.tag.endswith((":int", ":float")):
            raise ConfigError(f"{_line(node)} has a number of {len(node.value)} characters; {MAX_NUMBER} are allowed")
    elif node.id == "mapping":
        children = [one for pair in node.value for one in pair]
    else:
        children = node.value
    known[id(node)] = 1 + sum(_size(one, known, above, nodes) for one in children)
    above.discard(id(node))
    return known[id(node)]


def _check_keys(node: Any) -> None:
    """Of two equal keys the reader would take the last, and say nothing."""
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if key.id != "scalar":
            continue
        if (key.tag, key.value) in seen:
            raise ConfigError(f"{_line(key)} has the key {key.value[:100]!r} a second time; leave one of them")
        seen.add((key.tag, key.value))


def _line(node: Any) -> str:
    return f"line {node.start_mark.line + 1}"
