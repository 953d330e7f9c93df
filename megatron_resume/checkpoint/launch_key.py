"""Which launch this process belongs to, and who it is, from what the launcher and the kernel say."""

import hashlib
import os
import socket
from collections.abc import Mapping

from .records import Launch

LAUNCH_ID = "MEGATRON_RESUME_LAUNCH_ID"
# The first that is set names the launch. torchrun's default run id "none" names nothing.
_JOB_VARIABLES = (LAUNCH_ID, "SLURM_JOB_ID", "TORCHELASTIC_RUN_ID")
_PART_VARIABLES = ("SLURM_STEP_ID", "MASTER_PORT")  # tell launches apart that share a job id
NEW_PORTS = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"  # torchrun's: at each restart ranks meet at another port
ENGINE_STARTS = "MEGATRON_RESUME_ENGINE_STARTS"
REQUEUES = "MEGATRON_RESUME_REQUEUES"  # by what starts `launch` again, where that says so
# By the one who restarts the most first: whenever it does, those that follow begin at 0 again.
_RESTART_VARIABLES = ("SLURM_RESTART_COUNT", REQUEUES, ENGINE_STARTS, "TORCHELASTIC_RESTART_COUNT")
MAX_NAME = 1_000  # bytes of what names a launch
_MAX_RESTARTS = 100_000  # by each of them


def launch_key(environ: Mapping[str, str]) -> Launch:
    """The launch of this process.

    Without a job id from the launcher, the parent process is the launch: torchrun's agent, which stays
    the same over its restarts, and a shell or service otherwise.
    """
    job = _job(environ)
    counted = [environ.get(v, "") for v in _RESTART_VARIABLES]
    restart = 0
    for text in counted:
        restart = restart * _MAX_RESTARTS + (int(text) if text.isdecimal() and len(text) < 6 else 0)
    return Launch(
        job=job or f"{socket.gethostname()}:{_parent()}",
        restart=restart,
        counts=any(text.isdecimal() for text in counted),
        host=socket.gethostname(),
        pid=os.getpid(),
        boot=boot(),
        started=started(os.getpid()) or "",
    )


def _parent() -> str:
    """What no later process is called: the first in a container has no parent that could be seen, and is its own."""
    parent = os.getppid()
    if parent == 0:
        return f"{os.getpid()}:{started(os.getpid())}:{boot()}"
    return f"{parent}:{started(parent) or boot()}"


def shared_by_all_ranks(environ: Mapping[str, str]) -> str | None:
    """What names this very start on every rank and nothing else; None where the launcher gives no such name.

    On several nodes a job id is needed. A job id alone may be used again by a later launch (torchrun's
    `--rdzv-id`), so the port of the rendezvous goes with it. Where that is another one at each restart, restarts are
    not counted: the agents of torchrun count them each for itself, and one that was replaced begins at 0.
    """
    job = _job(environ)
    one_node = environ.get("WORLD_SIZE") == environ.get("LOCAL_WORLD_SIZE", "?")
    if job is None and not one_node:
        return None
    key = launch_key(environ)
    has_new_ports = not one_node and environ.get(NEW_PORTS, "0") == "1"
    restart = "" if has_new_ports else str(key.restart)
    return ":".join([key.job, restart, *(bounded(environ.get(v, "")) for v in _PART_VARIABLES)])


def _job(environ: Mapping[str, str]) -> str | None:
    found = next((environ[v] for v in _JOB_VARIABLES if environ.get(v, "none") not in ("", "none")), None)
    return None if found is None else bounded(found)


def bounded(name: str) -> str:
    """A name from outside as records hold it: in UTF-8, and if it is too long, told from others by a digest."""
    text = name.encode("utf-8", "surrogateescape")
    if len(text) > MAX_NAME:
        return f"blake2b:{hashlib.blake2b(text, digest_size=32).hexdigest()}"
    return text.decode("utf-8", "backslashreplace")


def boot() -> str:
    """This boot of this machine, and the name space in which process ids are counted."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):  # /proc counts in another name space than we do
            return ""
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def started(pid: int) -> str | None:
    """When process `pid` started, in clock ticks since boot; None when it is gone, or may not be looked at."""
    found = _stat(pid)
    return None if found is None or (found[0] in "ZX" and found[2] < 2) else found[1]


def is_gone(launch: Launch) -> bool | None:
    """Whether the process of `launch` has ended; None where this process cannot see that.

    Its number must count in the same name space of the same boot. Machines that were made as copies of a running one
    share both, so the name of the host must be the same, too.
    """
    if not launch.boot or (launch.boot, launch.host) != (boot(), socket.gethostname()):
        return None
    try:
        os.kill(launch.pid, 0)  # also where /proc hides the processes of others
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass  # it may not be signalled, but is there; or is no number of a process
    found = _stat(launch.pid)
    if found is None:
        return None
    state, begun, threads = found  # the first of several threads may end before the others
    return begun != launch.started or (state in "ZX" and threads < 2)


def _stat(pid: int) -> tuple[str, str, int] | None:
    """State, start and number of threads of a process; None where it cannot be read."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            state, *fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return state, fields[18], int(fields[16])  # fields 22 and 20 of the whole line
