"""`run SCRIPT ARGS...`: one rank's process, with the hooks installed before the script's first line."""

import contextlib
import gc
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from megatron_resume.errors import ConfigError
from megatron_resume.processes import die_with_parent
from megatron_resume.watch import marks
from megatron_resume.watch.endings import VARIABLE

from .script import is_guarded, read

USAGE = """\
usage: megatron-resume run SCRIPT ARGS...
       torchrun TORCHRUN_ARGS... -m megatron_resume run SCRIPT ARGS...

Execute the Python file SCRIPT as `python SCRIPT ARGS...` would, with the hooks on Megatron installed.
SCRIPT is not edited, and all ARGS are its own; `run SCRIPT --help` lists the flags of the group "resume".
"""


def run(arguments: Sequence[str]) -> None:
    """Execute `[SCRIPT, ARGS...]` in this process; returns when the script's last line is done.

    Raises:
        ConfigError: There is no such script.
        BaseException: Whatever the script raises, SystemExit included.
    """
    if arguments[:1] in (["--help"], ["-h"]):
        print(USAGE, end="")
        return
    if not arguments or arguments[0].startswith("-"):
        found = f"found {arguments[0]!r} where SCRIPT is due" if arguments else "no SCRIPT given"
        raise ConfigError(f"{found}; type `megatron-resume run SCRIPT ARGS...`, with options after SCRIPT")
    source = read(arguments[0])
    if VARIABLE in os.environ:
        die_with_parent(os.getppid())  # the agent, without which nobody would end this rank
    _become(list(arguments))
    with _that_stays():
        import megatron_resume.auto  # noqa: F401  # installs the hooks

    try:
        _execute(source, os.path.abspath(arguments[0]))
    except SystemExit as ended:
        marks.leaves(_exit_code(ended), ended)
        raise
    marks.leaves()


@contextlib.contextmanager
def _that_stays() -> Iterator[None]:
    """Keep what is imported inside the `with` block from being searched for garbage, now and later: it is no garbage.

    A fifth of the time that torch and Megatron take to import goes into such searches, and they count as ours where a
    rank is started again: what we import makes them longer.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _exit_code(ended: SystemExit) -> int:
    """As the interpreter will give it to the parent."""
    return ended.code & 0xFF if isinstance(ended.code, int) else int(ended.code is not None)


def _become(arguments: list[str]) -> None:
    """Set `sys.argv` and `sys.path` as Python does for `python SCRIPT ARGS...`."""
    sys.argv[:] = arguments
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = str(Path(arguments[0]).resolve().parent)
    # Spawned helpers import `megatron_resume.__main__` with our path, which the replaced entry may have held.
    package_root = str(Path(__file__).resolve().parents[2])
    if package_root not in sys.path:
        sys.path.append(package_root)


def _execute(source: bytes, path: str) -> None:
    """Execute the script as the module `__main__`, which stays the object that it is.

    Its namespace is the script's, since pickle, typing and inspect look up there what a script defines.
    Helper processes that Megatron spawns import `__main__` once more: by its `__spec__`, or else by its
    `__file__`. A script with a guard is what they get, as from Python. One without would train in each
    helper and hang the first save, so there they get ours.
    """
    main_module = sys.modules["__main__"]
    namespace = vars(main_module)
    ours = importlib.util.find_spec("megatron_resume.__main__")
    namespace["__spec__"] = None if is_guarded(source) else ours
    namespace |= {"__name__": "__main__", "__file__": path, "__package__": "", "__doc__": None}
    exec(compile(source, path, "exec", dont_inherit=True), namespace)
