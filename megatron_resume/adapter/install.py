"""Put the hooks into Megatron, and take them out again."""

import atexit
import logging
import sys
from typing import Any

from ..shown import Shown
from .versions import hook_set, other_hooks

logger = logging.getLogger("megatron_resume")


class _WhenNobodyElseDoes(logging.StreamHandler):  # type: ignore[type-arg]
    """Prints our messages while the process has no logging of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            self.stream = sys.stderr
            super().emit(record)


def install() -> None:
    """Hook Megatron, before or after it is imported; a second call does nothing.

    Raises:
        UnsupportedMegatron: A function or parameter is missing in the imported Megatron; nothing is hooked.
    """
    if hook_set.installed:
        return
    hook_set.install()
    other_hooks.install()
    _speak()
    atexit.register(_end_if_unfinished)  # what came first is called last
    atexit.register(_at_exit)
    logger.debug("hooks: %s", ", ".join(f"{hook.name} {hook_set.state(hook)}" for hook in hook_set.hooks))


def uninstall() -> None:
    """Give Megatron its own functions back; waits for pending commits."""
    hook_set.uninstall()
    other_hooks.uninstall()
    _at_exit()
    atexit.unregister(_at_exit)
    atexit.unregister(_end_if_unfinished)
    for module in filter(None, map(_imported, ("saving", "session", "training", "stopping"))):
        module.forget()


def _speak() -> None:
    """INFO lines are what people wait for; without logging set up, Python would drop them."""
    if not any(isinstance(one, Shown) for one in logger.filters):
        logger.addFilter(Shown())
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    if not any(isinstance(handler, _WhenNobodyElseDoes) for handler in logger.handlers):
        handler = _WhenNobodyElseDoes()
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(levelname)s: %(message)s"))
        logger.addHandler(handler)


def _imported(module: str) -> Any:
    """One of this folder, if a hook was called that needs it; else it has nothing to do or to forget."""
    return sys.modules.get(f"{__package__}.{module}")


def _end_if_unfinished() -> None:
    saving = _imported("saving")
    if saving is not None:
        saving.end_if_unfinished()


def _at_exit() -> None:
    session = _imported("session")
    if session is not None and session.current() is not None:
        from . import saving, training

        saving.warn_of_unfinished()
        training.warn_of_no_save()
