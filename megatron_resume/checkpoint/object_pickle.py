"""Pickles of objects, read so that nothing in them runs: an object becomes a note of its class and what it was given.

As in `plain_pickle`, `pickletools` splits the file into its steps without executing one. No class is imported and no
function is called, whatever the file names; a step that is unknown here is refused.
"""

import io
import pickletools
import re
import struct
from collections.abc import Callable
from typing import Any, Final

from ..errors import DamagedError
from ..shown import shown_in_line

_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS, _GETS = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}
_NOTHING = {"PROTO", "FRAME", "STOP"}
_MARK: Final = object()


class Noted:
    """An object, or with `given` None the class or function itself."""

    def __init__(self, module: str, name: str, given: Any = None) -> None:
        self.module, self.name, self.given = module, name, given
        self.state: Any = None
        self.items: Any = {}  # of a kind of dict, or of list


def load(data: bytes, modules: str, what: object) -> Any:
    """The value in `data`; `what` names it in the error. Bound the size of `data` before.

    Args:
        modules: regular expression for the modules that it may name.

    Raises:
        DamagedError: It is torn, or holds what was not expected.
    """
    try:
        return _value(data, modules)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise DamagedError(f"{what} is not as it was pickled: {shown_in_line(str(error)) or 'it is torn'}") from error


def _value(data: bytes, modules: str) -> Any:
    machine = _Machine(modules)
    for step, argument, _ in pickletools.genops(io.BytesIO(data)):
        machine.do(step.name, argument)
    (value,) = machine.stack
    return value


class _Machine:
    """The stack of the pickle format, and its memo."""

    def __init__(self, modules: str) -> None:
        self.stack: list[Any] = []
        self._modules, self._memo = re.compile(modules), dict[int, Any]()
        self._steps: dict[str, Callable[[], None]] = {
            "MARK": lambda: self.stack.append(_MARK),
            "EMPTY_LIST": lambda: self.stack.append([]),
            "EMPTY_DICT": lambda: self.stack.append({}),
            "TUPLE": lambda: self.stack.append(tuple(self._after_mark())),
            "APPEND": lambda: self._extend([self.stack.pop()]),
            "APPENDS": lambda: self._extend(self._after_mark()),
            "SETITEM": lambda: self._set([self.stack.pop(), self.stack.pop()][::-1]),
            "SETITEMS": lambda: self._set(self._after_mark()),
            "MEMOIZE": lambda: self._memo.update({len(self._memo): self.stack[-1]}),
            "STACK_GLOBAL": lambda: self._name(*[self.stack.pop(), self.stack.pop()][::-1]),
            "REDUCE": self._make,
            "NEWOBJ": self._make,
            "BUILD": self._build,
        }

    def do(self, step: str, argument: Any) -> None:
        if step in _VALUES:
            self.stack.append(argument)
        elif step in _CONSTANTS:
            self.stack.append(_CONSTANTS[step])
        elif step in _TUPLES:
            self.stack[-_TUPLES[step] :] = [tuple(self.stack[-_TUPLES[step] :])]
        elif step in _PUTS:
            self._memo[argument] = self.stack[-1]
        elif step in _GETS:
            self.stack.append(self._memo[argument])
        elif step == "GLOBAL":
            self._name(*argument.split(" ", 1))
        elif step in self._steps:
            self._steps[step]()
        elif step not in _NOTHING:
            raise ValueError(f"its step {step} is not expected")

    def _name(self, module: str, name: str) -> None:
        if not self._modules.fullmatch(module):
            raise ValueError(f"it names {module}.{name}")
        self.stack.append(Noted(module, name))

    def _make(self) -> None:
        given, kind = self.stack.pop(), self.stack.pop()
        self.stack.append(Noted(kind.module, kind.name, tuple(given)))

    def _build(self) -> None:
        state = self.stack.pop()
        self.stack[-1].state = state

    def _after_mark(self) -> list[Any]:
        items = []
        while (value := self.stack.pop()) is not _MARK:
            items.append(value)
        return items[::-1]

    def _extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        entries = dict(zip(items[::2], items[1::2], strict=True))
        (target.items if isinstance(target, Noted) else target).update(entries)
