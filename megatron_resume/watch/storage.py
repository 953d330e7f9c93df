"""Storage that may not answer, as a mount whose server is gone: whoever asks it for something waits for so long."""

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Storage:
    """Asks in a thread, which is left behind where no answer comes; meanwhile nothing else is asked."""

    def __init__(self) -> None:
        self._asks: threading.Thread | None = None

    def ask(self, act: Callable[[], T], otherwise: T, *, limit_s: float) -> T:
        """What `act` returns; `otherwise` where it does not within `limit_s`. Raises what `act` does."""
        if self._asks is not None and self._asks.is_alive():
            return otherwise
        answers: list[T] = []
        errors: list[BaseException] = []

        def answer() -> None:
            try:
                answers.append(act())
            except BaseException as error:
                errors.append(error)

        self._asks = threading.Thread(target=answer, name="megatron_resume storage", daemon=True)
        self._asks.start()
        self._asks.join(limit_s)
        if errors:
            raise errors[0]
        return answers[0] if answers else otherwise
