"""A rank that hangs or ends, or ends others, in the first lives of a run."""

import atexit
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

import megatron.training.training as training


def rank():
    """Rank `HANG_RANK` (1) ends or hangs as `HANG` says, in the first `HANG_TIMES` (1) lives.

    Several ways, with commas between them, are those of the lives in turn.

    It does so before train step `HANG_AT` of the life: by default that of policy in the third iteration, after the
    first save. Where `HANG_COMMITTED` names the data checkpoint folder, this life has committed a point before.
    The file `HUNG` has a byte for each of these lives.
    """
    ways, hung = os.environ["HANG"].split(","), Path(os.environ["HUNG"])
    times = hung.stat().st_size if hung.exists() else 0
    how = ways[times % len(ways)]
    if os.environ["RANK"] != os.environ.get("HANG_RANK", "1") or times >= int(os.environ.get("HANG_TIMES", "1")):
        return

    def hang():
        with hung.open("ab") as file:
            file.write(b".")
        HANGS[how]()

    if how == "start":
        hang()
    if how == "exit":
        atexit.register(hang)
        return
    train_step, calls = training.train_step, []

    def step_or_hang(*args, **kwargs):
        calls.append(1)
        if len(calls) == int(os.environ.get("HANG_AT", "5")):
            if "HANG_COMMITTED" in os.environ:
                until_committed(Path(os.environ["HANG_COMMITTED"]))
            hang()
        return train_step(*args, **kwargs)

    training.train_step = step_or_hang


def until_committed(root):
    newest = max(path.name for path in (root / "attempts").iterdir())
    while not list(root.glob(f"iter_*.a{newest}/COMMITTED")):
        time.sleep(0.02)


def for_ever():
    while True:
        time.sleep(3600)


def hold_the_interpreter():
    mutex, native = ctypes.create_string_buffer(64), ctypes.PyDLL(None)  # unlike CDLL, PyDLL lets no other thread run
    native.pthread_mutex_lock(mutex)
    native.pthread_mutex_lock(mutex)


def kill(*pids):
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for_ever()


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def pids_of_ranks():
    """All on this node, this one last."""
    agent = os.getppid()
    found = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return sorted((pid for pid in found if parent(pid) == agent), key=lambda pid: pid == os.getpid())


HANGS = {
    "start": for_ever,
    "exit": for_ever,
    "sleep": for_ever,
    "lock": hold_the_interpreter,
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "kill": lambda: kill(os.getpid()),
    "all": lambda: kill(*pids_of_ranks()),
    "agent": lambda: kill(os.getppid()),
    "launch": lambda: kill(parent(parent(os.getppid()))),
    "error": lambda: sys.exit(1),
}
