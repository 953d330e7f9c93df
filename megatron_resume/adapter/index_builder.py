"""Do not compile the index builder of Megatron's datasets where it lies compiled and cannot be compiled again.

`initialize_megatron` runs `make` for it at each start, whether the job has such datasets or not. A checkout of
Megatron-LM has the Makefile. The wheels (seen in 0.17.1, 0.18.2 and 0.19.2) have the compiled module in its place, so
`make` finds nothing to do, fails, and Megatron ends the start of every script that does not hide that function.
"""

import inspect
import logging
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from ..hooks import AnyFunction

logger = logging.getLogger("megatron_resume")

COMPILED = "helpers_cpp"


def can_be_compiled(folder: Path) -> bool:
    """Whether `make` in `folder`, that of `megatron.core.datasets`, has something to go by."""
    return (folder / "Makefile").exists()


def is_compiled(folder: Path) -> bool:
    """Whether `folder` has the compiled module, for this Python."""
    return any((folder / f"{COMPILED}{suffix}").exists() for suffix in EXTENSION_SUFFIXES)


def wrap_compile_helpers(original: AnyFunction) -> AnyFunction:
    def compile_helpers(*args: Any, **kwargs: Any) -> Any:
        folder = Path(inspect.getfile(original)).parent  # a script may have put a function of its own there
        if is_compiled(folder) and not can_be_compiled(folder):
            logger.debug("%s has no Makefile, and %s compiled: nothing is compiled", folder, COMPILED)
            return None
        return original(*args, **kwargs)

    return compile_helpers
