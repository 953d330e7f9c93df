"""`megatron-resume ARGS...`, where what `launch` and torchrun start of Python is forked: it has imported torch already.

Their code is what runs, in the same tree of processes with the same signals; an import of torch in each of them would
cost a launch of two small ranks seven seconds. All have the name that COMM gives, by which a test finds them.
"""

import atexit
import inspect
import logging
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from functools import partial
from importlib import import_module
from multiprocessing import resource_tracker
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from support.programs import interpreter

COMM = "TEST_COMM"
ABANDONED_S = "TEST_ABANDONED_S"


class Forked(subprocess.Popen[bytes]):
    """A process as subprocess makes it; `[sys.executable, (-u), (-m), NAME, ARGS...]` is forked."""

    def _execute_child(self, *given: Any) -> None:
        made = super()._execute_child  # type: ignore[misc]
        asked = inspect.signature(made).bind(*given).arguments
        words = list(map(str, asked["args"]))
        if words[0] != sys.executable:
            made(*given)
            return
        self.pid = os.fork()
        if self.pid == 0:
            _become(words[1:], asked["env"], asked["preexec_fn"], asked["start_new_session"])
        self._child_created = True


def _become(
    words: list[str], environ: dict[str, str], preexec: Callable[[], None] | None, new_session: bool
) -> NoReturn:
    code = 1
    try:
        if new_session:
            os.setsid()
        _forget()
        if preexec is not None:
            preexec()
        os.environ.clear()
        os.environ.update(environ)
        if "megatron.core" in sys.modules and "RANK" in environ:
            # As in a rank whose entry knows that there is no GPU, which here it cannot see.
            import_module("cpu.megatron_gaps").fork_the_result_queue()
        code = interpreter.execute([word for word in words if word != "-u"])
    except BaseException:
        traceback.print_exc()
    finally:
        interpreter.end(code)


def _forget() -> None:
    """What does not outlive exec: handlers of signals and of the end, descriptors, and where messages go."""
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    atexit._clear()
    os.closerange(3, 4096)
    tracker = resource_tracker._resource_tracker
    tracker._fd = tracker._pid = None
    logging.root.handlers.clear()
    logging.root.setLevel(logging.WARNING)
    interpreter.make_streams()


if __name__ == "__main__":
    from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

    from megatron_resume.cli import main
    from megatron_resume.launch import parent

    Path("/proc/self/comm").write_text(os.environ[COMM])
    if ABANDONED_S in os.environ:  # what a rank leaves behind has so many seconds to end by itself
        parent.Abandoned = partial(parent.Abandoned, float(os.environ[ABANDONED_S]))  # type: ignore[misc, assignment]
    parent.subprocess = SimpleNamespace(Popen=Forked)  # type: ignore[assignment]
    subprocess_handler.Popen = Forked
    sys.exit(main(sys.argv[1:]))
