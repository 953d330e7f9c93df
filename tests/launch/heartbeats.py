"""A rank that sends heartbeats to ft_launcher; rank 1 of the first life goes silent after three of them."""

import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from nvidia_resiliency_ext.fault_tolerance import RankMonitorClient

folder = Path(sys.argv[1])
rank, restart = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
dist.init_process_group("gloo")
monitor = RankMonitorClient()
monitor.init_workload_monitoring()
for step in range(6):
    monitor.send_heartbeat()
    if step == 3 and rank == 1 and restart == 0:
        (folder / "silent").write_text(str(os.getpid()))
        time.sleep(600)
    total = torch.ones(1)
    dist.all_reduce(total)
    assert total.item() == 2
monitor.shutdown_workload_monitoring()
(folder / f"done{restart}.{rank}").touch()
