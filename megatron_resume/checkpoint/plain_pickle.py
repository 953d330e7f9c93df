"""Pickles of plain values (dict, str, int, float, list, None), read so that nothing in them can run.

`pickletools` splits a pickle into its steps without executing one. The few that build plain values are done here,
by hand; whatever names a class, calls, or uses a value twice is unknown to this module, and so refused.
"""

import io
import pickletools
import struct
from collections.abc import Callable
from typing import Any, Final

from ..errors import DamagedError
from .nesting import is_deeper

MAX_DEPTH = 20  # of lists and dicts in each other

_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "NONE"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_MARK: Final = object()


def load(data: bytes, what: object) -> Any:
    """The plain value in `data`; `what` names it in the error. Bound the size of `data` before.

    Raises:
        DamagedError: It is torn, or holds anything but plain values.
    """
    try:
        value = _value(data)
        if is_deeper(value, MAX_DEPTH):
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
        return value
    except (ValueError, IndexError, KeyError, struct.error) as error:
        raise DamagedError(f"{what} is no pickle of plain values: {str(error) or 'it is torn'}") from error


def _value(data: bytes) -> Any:
    file, machine = io.BytesIO(data), _Machine()
    for step, argument, _ in pickletools.genops(file):
        machine.do(step.name, argument)
    if file.tell() != len(data):
        raise ValueError(f"{len(data) - file.tell()} bytes follow its end")
    return machine.result()


class _Machine:
    """The stack of the pickle format, and its memo, from which only strings can be had again."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, str | None] = {}
        self._steps: dict[str, Callable[[], None]] = {
            "MARK": lambda: self._stack.append(_MARK),
            "EMPTY_LIST": lambda: self._stack.append([]),
            "EMPTY_DICT": lambda: self._stack.append({}),
            "LIST": lambda: self._stack.append(self._after_mark()),
            "DICT": self._dict,
            "APPEND": lambda: self._append([self.pop()]),
            "APPENDS": lambda: self._append(self._after_mark()),
            "SETITEM": lambda: self._set([self.pop(), self.pop()][::-1]),
            "SETITEMS": lambda: self._set(self._after_mark()),
            "MEMOIZE": lambda: self._put(len(self._memo)),
            **dict.fromkeys(["PROTO", "FRAME", "STOP"], lambda: None),
        }

    def do(self, step: str, argument: Any) -> None:
        if step in _VALUES and type(argument) in (int, float, str, type(None)):
            str(argument).encode()  # as JSON will need it
            self._stack.append(argument)
        elif step in _PUTS:
            self._put(argument)
        elif step in _GETS:
            self._get(argument)
        elif step in self._steps:
            self._steps[step]()
        else:
            raise ValueError(f"its step {step} builds something else than dict, str, int, float, list and None")

    def result(self) -> Any:
        value = self.pop()
        if self._stack:
            raise ValueError("it holds more than one value")
        return value

    def pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("a value is missing in it")
        return value

    def _put(self, index: int) -> None:
        value = self._stack[-1]
        self._memo[index] = value if isinstance(value, str) else None

    def _get(self, index: int) -> None:
        """A list that is used twice could hold itself, or grow without bound."""
        value = self._memo[index]
        if value is None:
            raise ValueError("it uses a value in two places")
        self._stack.append(value)

    def _after_mark(self) -> list[Any]:
        items = []
        while (value := self._stack.pop()) is not _MARK:
            items.append(value)
        return items[::-1]

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise ValueError("it appends to what is no list")
        target.extend(items)

    def _dict(self) -> None:
        items = self._after_mark()
        self._stack.append({})
        self._set(items)

    def _set(self, items: list[Any]) -> None:
        """`items` are key, value, key, value, and so on."""
        target = self._stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("it sets a key without a value, or of no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str) or key in target:
                raise ValueError("a key of it is no str, or stands there twice")
            target[key] = value
