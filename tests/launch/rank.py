"""A rank that ends as its first argument says; it marks its pid in the folder of the second."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

how, folder = sys.argv[1], Path(sys.argv[2])
rank, restart = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
if how == "fatal" and restart:
    time.sleep(60)  # as one imports for seconds: meanwhile `launch` ends it
is_first = not any(folder.glob("pid*"))
(folder / f"pid{os.getpid()}").touch()
(folder / f"started{restart}.{rank}").touch()
while len(list(folder.glob(f"started{restart}.*"))) < 2:  # else one is ended before it has begun
    time.sleep(0.02)
(folder / "python").write_text(f"{sys.executable}\n{importlib.util.find_spec('nvidia_resiliency_ext')}")


def stubborn_child():
    """A forked process that no SIGTERM ends, as a loader of data or a writer of checkpoints may be."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
        os._exit(0)
    return pid


def lives(pid):
    return Path(f"/proc/{pid}/stat").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text()


def leave_somebody_behind():
    """In the first life; the second waits until he is ended, and has an orphan of its own, which is not."""
    left = folder / "left"
    if restart == 0:
        left.write_text(str(stubborn_child()))
        os.kill(os.getpid(), signal.SIGKILL)
    orphan = int(subprocess.run(["sh", "-c", "sleep 600 >&- & echo $!"], stdout=subprocess.PIPE, check=True).stdout)
    while lives(int(left.read_text())):
        time.sleep(0.05)
    assert lives(orphan)


def step_together():
    """Rank 1 is killed after the first step of the first life."""
    import torch

    torch.distributed.init_process_group("gloo")
    for step in range(3):
        torch.distributed.all_reduce(torch.ones(1))
        (folder / f"step{step}.{restart}.{rank}").touch()
        if restart == 0 and rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    torch.distributed.destroy_process_group()  # else gloo's thread may end an exiting process with SIGABRT


if how == "rank killed" and restart == 0 and rank == 1:
    os.kill(os.getpid(), signal.SIGKILL)
if how == "agent killed" and is_first:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)
if how in ("fatal", "error"):
    stubborn_child()
    subprocess.Popen(["sleep", "600"], start_new_session=True)
if how == "stopped" and rank == 1:
    sys.exit(202)
if how == "fatal" and rank == 1:
    sys.exit(78)
if how == "error" and rank == 1:
    raise SystemExit(7)
if how in ("fatal", "error", "hang"):
    time.sleep(600)
if how == "leaves" and rank == 1:
    leave_somebody_behind()
if how == "steps":
    step_together()
if how == "sleep":
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    stubborn_child()
    (folder / f"asleep{rank}").touch()
    time.sleep(600)
(folder / f"done{rank}").touch()
