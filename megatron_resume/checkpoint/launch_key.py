"""Which launch this process belongs to, from what the launcher and the kernel say."""

import os
import socket
from collections.abc import Mapping

from .records import Launch

# The first that is set names the launch. torchrun's default run id "none" names nothing.
_JOB_VARIABLES = ("MEGATRON_RESUME_LAUNCH_ID", "SLURM_JOB_ID", "TORCHELASTIC_RUN_ID")
_RESTART_VARIABLES = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")


def launch_key(environ: Mapping[str, str]) -> Launch:
    """The launch of this process.

    Without a job id from the launcher, the parent process is the launch: torchrun's agent, which stays
    the same over its restarts, and a shell or service otherwise.
    """
    job = next((environ[v] for v in _JOB_VARIABLES if environ.get(v, "none") not in ("", "none")), None)
    restart = next((environ[v] for v in _RESTART_VARIABLES if environ.get(v, "").isdecimal()), "0")
    return Launch(job=job or _parent(), restart=int(restart), host=socket.gethostname(), pid=os.getpid())


def _parent() -> str:
    parent = os.getppid()
    try:
        with open(f"/proc/{parent}/stat") as file:
            started = file.read().rpartition(")")[2].split()[19]  # field 22: clock ticks since boot
    except OSError:
        started = "?"
    return f"{socket.gethostname()}:{parent}:{started}"
