"""Wrap named functions so that every copy of their name is wrapped, list them, and put them back.

Rebinding a name misses the copies that `from x import f` made before. So the function object stays and
its code is exchanged: whoever holds the object, from before or after, calls the wrapper. A module that
is not imported yet is waited for, so the order of imports does not matter. Knows nothing of Megatron.
"""

import functools
import importlib
import importlib.abc
import importlib.util
import inspect
import sys
import types
from collections.abc import Callable, Collection, Iterable, Sequence
from importlib.machinery import ModuleSpec
from typing import Any, NamedTuple

from .errors import UnsupportedMegatron

AnyFunction = Callable[..., Any]


def imported_late(module: str, name: str) -> Callable[[AnyFunction], AnyFunction]:
    """The wrapper `name` of `module`, which is imported when what it wraps is first called, if it was not before."""

    def wrap(original: AnyFunction) -> AnyFunction:
        there: Callable[[AnyFunction], AnyFunction] | None = getattr(sys.modules.get(module), name, None)
        if there is not None:
            return there(original)
        made: AnyFunction | None = None

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal made
            if made is None:
                made = getattr(importlib.import_module(module), name)(original)
            return made(*args, **kwargs)

        return call

    return wrap


class Hook(NamedTuple):
    """One function to wrap: `wrap(original)` returns what is called instead of it."""

    module: str
    function: str  # or Class.method
    needs: tuple[str, ...]  # parameters that the wrapper reads by name
    wrap: Callable[[AnyFunction], AnyFunction]
    optional: bool = False  # some supported versions do not have this function
    may_be_replaced: bool = False  # whatever a script put in its place is left alone

    @property
    def name(self) -> str:
        return f"{self.module}.{self.function}"

    def find(self, module: types.ModuleType) -> types.FunctionType | None:
        """The function in `module`, checked; None when it is absent and optional, or replaced and may be.

        Raises:
            UnsupportedMegatron: It is absent, not a plain function, or lacks a parameter.
        """
        found: Any = module
        for name in self.function.split("."):
            found = getattr(found, name, None)
        if found is None:
            if self.optional:
                return None
            raise UnsupportedMegatron(f"{self.name} does not exist in {_version_of(module)}")
        if not isinstance(found, types.FunctionType) or found.__code__.co_freevars:
            if self.may_be_replaced:
                return None
            raise UnsupportedMegatron(
                f"{self.name} is not a plain function in {_version_of(module)} (decorated?); "
                "import megatron_resume.auto before whatever wraps it"
            )
        missing = [name for name in self.needs if name not in _parameters(found)]
        if missing:
            raise UnsupportedMegatron(f"{self.name} has no parameter {', '.join(missing)} in {_version_of(module)}")
        return found


def _parameters(function: types.FunctionType) -> Collection[str]:
    """Names of those that a caller may give by name."""
    if hasattr(function, "__wrapped__"):
        return inspect.signature(function).parameters
    code = function.__code__  # a hundred times as quick, for each hook in each process
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def _version_of(module: types.ModuleType) -> str:
    top = sys.modules.get(f"{module.__name__.partition('.')[0]}.core")
    version = getattr(top, "__version__", "an unknown version")
    return f"{module.__name__.partition('.')[0]} {version} ({getattr(module, '__file__', None)})"


# The code that a wrapped function runs; `WRAPPER` is renamed to a global of the function's own module.
def _calls_wrapper(*args: Any, **kwargs: Any) -> Any:
    return WRAPPER(*args, **kwargs)  # type: ignore[name-defined]  # noqa: F821


def swap(function: types.FunctionType, wrap: Callable[[AnyFunction], AnyFunction]) -> Callable[[], None]:
    """Make `function` call `wrap(original)`, keeping its identity; returns what undoes it."""
    name = f"__megatron_resume_{function.__name__}__"
    before = (function.__code__, function.__defaults__, function.__kwdefaults__)
    original = types.FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    original.__kwdefaults__ = function.__kwdefaults__
    original.__qualname__, original.__module__ = function.__qualname__, function.__module__
    original.__doc__, original.__annotations__ = function.__doc__, function.__annotations__
    function.__globals__[name] = wrap(original)
    function.__code__ = _calls_wrapper.__code__.replace(co_names=(name,), co_name=function.__name__)
    function.__defaults__ = function.__kwdefaults__ = None
    function.__wrapped__ = original  # type: ignore[attr-defined]  # inspect.signature follows it

    def undo() -> None:
        function.__code__, function.__defaults__, function.__kwdefaults__ = before
        del function.__wrapped__  # type: ignore[attr-defined]
        function.__globals__.pop(name, None)

    return undo


class HookSet:
    """Hooks that are installed together, at once where their module is imported, else on its import.

    Args:
        check: called with each module before it is hooked; may raise UnsupportedMegatron.
    """

    def __init__(self, hooks: Iterable[Hook], check: Callable[[types.ModuleType], None] = lambda module: None):
        self.hooks = tuple(hooks)
        self._check = check
        self._undo: dict[Hook, Callable[[], None]] = {}
        self._finder = _AfterImport({hook.module for hook in self.hooks}, self._imported)

    @property
    def installed(self) -> bool:
        return self._finder in sys.meta_path

    def state(self, hook: Hook) -> str:
        """ "active", "waiting for <module>" or "off" (not installed, or absent in this version)."""
        if hook in self._undo:
            return "active"
        if self.installed and hook.module not in sys.modules:
            return f"waiting for {hook.module}"
        return "off"

    def install(self) -> None:
        """Wrap every function, or none and raise UnsupportedMegatron; a second call does nothing."""
        if self.installed:
            return
        modules = {hook.module: sys.modules.get(hook.module) for hook in self.hooks}
        for imported in filter(None, modules.values()):
            self._check(imported)
        found = [(hook, hook.find(module)) for hook in self.hooks if (module := modules[hook.module])]
        sys.meta_path.insert(0, self._finder)
        self._swap(found)

    def uninstall(self) -> None:
        """Give every function its own code back."""
        if self.installed:
            sys.meta_path.remove(self._finder)
        for undo in self._undo.values():
            undo()
        self._undo.clear()

    def _swap(self, found: Iterable[tuple[Hook, types.FunctionType | None]]) -> None:
        for hook, function in found:
            if function is not None:
                self._undo[hook] = swap(function, hook.wrap)

    def _imported(self, module: types.ModuleType) -> None:
        try:
            self._check(module)
            found = [(hook, hook.find(module)) for hook in self.hooks if hook.module == module.__name__]
        except UnsupportedMegatron:
            self.uninstall()
            raise
        self._swap(found)


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds modules as Python would, and calls `done(module)` when one of `names` was executed."""

    def __init__(self, names: set[str], done: Callable[[types.ModuleType], None]):
        self._names, self._done = names, done
        self._looking: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._names or fullname in self._looking:
            return None
        self._looking.add(fullname)  # find_spec below asks us again
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._looking.discard(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._done)
        return spec


class _Loader(importlib.abc.Loader):
    """Executes a module through its own loader, then reports it."""

    def __init__(self, own: importlib.abc.Loader, done: Callable[[types.ModuleType], None]):
        self._own, self._done = own, done

    def create_module(self, spec: ModuleSpec) -> types.ModuleType | None:
        return self._own.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._own
        module.__loader__ = self._own
        self._own.exec_module(module)
        self._done(module)
