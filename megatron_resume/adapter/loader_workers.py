"""The workers of a DataLoader outlive a launcher's SIGTERM, as Megatron's checkpoint workers do.

torchrun sends it to the whole session of a rank. A worker that dies of it makes the rank's next batch a RuntimeError,
before the loop comes to its last save. (torch 2.13 puts SIGTERM to its workers only where they do not end when asked.)
"""

from typing import Any

from ..hooks import AnyFunction
from ..watch import marks
from . import helper_deaths, session


def wrap_get_iterator(original: AnyFunction) -> AnyFunction:
    def _get_iterator(self: Any) -> Any:
        if not self.num_workers or session.current() is None:
            return original(self)
        with helper_deaths.of_this_rank(outlive_sigterm=marks.is_watched()):
            return original(self)

    return _get_iterator
