"""A rank that hangs at once: hanging_rank.py HOW REPORT, where HOW is sleep, lock, stop or heartbeat.

Its process id and the time of its last sign of life stand in REPORT.
"""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

how, report = sys.argv[1], Path(sys.argv[2])
if how == "heartbeat":
    import torch  # noqa: F401  (or their client does not start)
    from nvidia_resiliency_ext.fault_tolerance import RankMonitorClient

    monitor = RankMonitorClient()
    monitor.init_workload_monitoring()
    monitor.send_heartbeat()
elif "MEGATRON_RESUME_ENDINGS" in os.environ:
    from megatron_resume import mark_progress

    mark_progress()
new = report.with_suffix(".new")
new.write_text(f"{os.getpid()} {time.monotonic()}")
new.replace(report)
if how == "stop":
    os.kill(os.getpid(), signal.SIGSTOP)
if how == "lock":
    mutex, native = ctypes.create_string_buffer(64), ctypes.PyDLL(None)  # PyDLL lets no other thread run
    native.pthread_mutex_lock(mutex)
    native.pthread_mutex_lock(mutex)
time.sleep(3600)
