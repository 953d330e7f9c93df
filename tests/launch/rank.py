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
is_first = not any(folder.glob("pid*"))
(folder / f"pid{os.getpid()}").touch()
(folder / f"started{restart}.{rank}").touch()
while len(list(folder.glob(f"started{restart}.*"))) < 2:  # else one is ended before it has begun
    time.sleep(0.02)
(folder / "python").write_text(f"{sys.executable}\n{importlib.util.find_spec('nvidia_resiliency_ext')}")
if how == "rank killed" and restart == 0 and rank == 1:
    os.kill(os.getpid(), signal.SIGKILL)
if how == "agent killed" and is_first:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)
if how == "fatal" and rank == 1:
    sys.exit(78)
if how == "error" and rank == 1:
    raise SystemExit(7)
if how in ("fatal", "error"):
    time.sleep(600)
if how == "sleep":
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    (folder / f"pid{child.pid}").touch()
    (folder / f"asleep{rank}").touch()
    time.sleep(600)
(folder / f"done{rank}").touch()
