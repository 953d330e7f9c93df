"""What a new interpreter finds and does at its end, for a program that is forked from one that imported much."""

import atexit
import os
import runpy
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn


def make_streams() -> None:
    """Those that were made for a file take a pipe for one, and wandb listens to them."""
    sys.stdout, sys.stderr = (
        open(number, "w", buffering=1, errors=errors, closefd=False)  # noqa: SIM115
        for number, errors in ((1, "strict"), (2, "backslashreplace"))
    )


def find_modules_in(environ_path: str) -> None:
    """As PYTHONPATH has it."""
    sys.path[1:1] = [path for path in environ_path.split(os.pathsep) if path]


def arm_crash_points() -> None:
    """As the environment says; the module took what it said when it was imported."""
    if crash := sys.modules.get("megatron_resume.crash"):
        crash.arm(os.environ.get(crash.VARIABLE))


def execute(words: Sequence[str]) -> int:
    """`python WORDS...`, which name a script or, after -m, a module; returns the exit code."""
    is_module = words[0] == "-m"
    name, *arguments = words[is_module:]
    sys.argv = [name, *arguments]
    sys.path[0] = os.getcwd() if is_module else str(Path(name).parent)
    arm_crash_points()
    try:
        if is_module:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(name, run_name="__main__")
    except SystemExit as error:
        return exit_code(error.code)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        return 1
    return 0


def exit_code(code: object) -> int:
    """Of sys.exit(code)."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def end(code: int) -> NoReturn:
    """Join threads and run atexit handlers, which commit pending checkpoints, then leave."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
        code = code or 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
