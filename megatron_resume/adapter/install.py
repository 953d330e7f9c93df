"""Put the hooks into Megatron, and take them out again."""

import atexit
import logging
import sys

from ..shown import Shown
from . import hard_exit, loader_workers, saving, session, stopping, training
from .versions import hook_set

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
    loader_workers.hook_set.install()
    hard_exit.hook_set.install()
    _speak()
    atexit.register(saving.end_if_unfinished)  # what came first is called last
    atexit.register(_at_exit)
    logger.debug("hooks: %s", ", ".join(f"{hook.name} {hook_set.state(hook)}" for hook in hook_set.hooks))


def uninstall() -> None:
    """Give Megatron its own functions back; waits for pending commits."""
    hook_set.uninstall()
    loader_workers.hook_set.uninstall()
    hard_exit.hook_set.uninstall()
    _at_exit()
    atexit.unregister(_at_exit)
    atexit.unregister(saving.end_if_unfinished)
    saving.forget()
    session.forget()
    training.forget()
    stopping.forget()


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


def _at_exit() -> None:
    if session.current() is not None:
        saving.warn_of_unfinished()
        training.warn_of_no_save()
