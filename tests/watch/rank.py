"""A rank without torch: it marks what it does, and then does what its first argument names.

`tell(name)` leaves a file in the folder of the second argument, `wait_for(name)` waits for one.
"""

import ctypes
import functools
import json
import logging
import os
import signal
import subprocess
import sys
import time
from multiprocessing import resource_tracker
from pathlib import Path

from megatron_resume.errors import CrashLoopError
from megatron_resume.watch import marks
from megatron_resume.watch.watched import Watched

what, folder = sys.argv[1], Path(sys.argv[2])
me = os.environ["RANK"]


def tell(name):
    (folder / f"{name}{me}").write_text(str(os.getpid()))


def wait_for(name):
    while not (folder / name).exists():
        time.sleep(0.01)


def until_told():
    tell("waits")
    wait_for(f"go{me}")


def for_ever():
    tell("hangs")
    while True:
        time.sleep(3600)


def sleeps_in_train():
    with marks.phase("train"):
        for_ever()


def holds_the_lock():
    tell("hangs")
    mutex, native = ctypes.create_string_buffer(64), ctypes.PyDLL(None)  # PyDLL lets no other thread run
    native.pthread_mutex_lock(mutex)
    native.pthread_mutex_lock(mutex)  # no signal ends this wait


def is_stopped():
    tell("hangs")
    os.kill(os.getpid(), signal.SIGSTOP)


def sleeps_in_setup():
    for_ever()


def sleeps_at_exit():
    marks.leaves()
    for_ever()


def rolls_out():
    with marks.phase("rollout"):
        until_told()


def saves():
    with marks.phase("checkpoint"):
        until_told()


def idles():
    with marks.phase("train"):
        marks.has_trained(1)
    until_told()


def comes_on():
    with marks.phase("train"):
        tell("waits")
        while not (folder / f"go{me}").exists():
            marks.mark_progress()
            time.sleep(0.01)


def sleeps_after_the_other():
    wait_for("hangs1")
    sleeps_in_train()


def sleeps_in_rollout():
    with marks.phase("rollout"):
        for_ever()


def is_stopped_in_rollout():
    with marks.phase("rollout"):
        is_stopped()


def becomes_another_program():
    code = "import sys, time; from pathlib import Path; Path(sys.argv[1]).touch()\n"
    code += "while not Path(sys.argv[2]).exists(): time.sleep(0.01)"
    os.execv(sys.executable, [sys.executable, "-c", code, str(folder / f"waits{me}"), str(folder / f"go{me}")])


def fails():
    with marks.phase("train"):
        marks.has_trained(7)
    with marks.phase("rollout"):
        raise KeyError("no such prompt")


def fails_by_what_it_was_given():
    sys.argv[1:] = (folder / "argv").read_text().split("\n")
    raise RuntimeError((folder / "message").read_text())


def misses_a_file():
    (folder / "nothing.bin").read_bytes()


def is_refused_at_once():
    marks.fails_by(CrashLoopError("given up"))
    os._exit(CrashLoopError.exit_code)


def is_refused_when_told():
    until_told()
    is_refused_at_once()


def exits_with_7():
    try:
        with marks.phase("evaluate"):
            sys.exit(7)
    except SystemExit as ended:
        marks.leaves(7, ended)
        raise


def is_killed():
    with marks.phase("train"):
        os.kill(os.getpid(), signal.SIGKILL)


def leaves_somebody_behind():
    """A process of ours that takes no SIGTERM, as Megatron's do, and one that went its own way."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    resource_tracker.ensure_running()
    for name, apart in (("left", False), ("apart", True)):
        code = "import time; time.sleep(3600)"
        process = subprocess.Popen([sys.executable, "-c", code], start_new_session=apart, close_fds=False)
        (folder / name).write_text(str(process.pid))
    (folder / "tracker").write_text(str(resource_tracker._resource_tracker._pid))


def leaves_somebody_behind_and_is_killed():
    leaves_somebody_behind()
    is_killed()


def leaves_somebody_behind_and_finishes():
    leaves_somebody_behind()
    os._exit(0)


def finishes():
    pass


logging.basicConfig(level=logging.INFO)
if "SHORTER" in os.environ:  # times of the watchdog
    marks.Watched = functools.partial(Watched, **json.loads(os.environ["SHORTER"]))
marks.begin()
if marks._watchdog is not None:
    (folder / f"watchdog{me}").write_text(str(marks._watchdog.pid))
if os.environ.get("ROOT"):
    marks.knows_root(Path(os.environ["ROOT"]))
if "ATTEMPT" in os.environ:
    marks.is_in_attempt(int(os.environ["ATTEMPT"]))
globals()[what]()
