"""SIGTERM, which ranks send to themselves, or wait for where a test wants to send it."""

import os
import signal
import time
from pathlib import Path

from rlhf import job
from torch.utils.data import DataLoader


def is_told_to_end():
    """SIGTERM comes to the ranks `TOLD` in their second "train" step or "rollout", as `TOLD_AT` says."""
    if "NEVER_ASKS" in os.environ:
        job.megatron_resume.should_stop = lambda: False
    if os.environ["RANK"] not in os.environ["TOLD"].split(","):
        return
    name = {"train": "train_policy", "rollout": "roll_out"}[os.environ["TOLD_AT"]]
    original, calls = getattr(job, name), []

    def told(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            if os.environ["TOLD_AT"] == "rollout":
                time.sleep(float(os.environ.get("ROLLOUT_S", "0")))
        return original(*args, **kwargs)

    setattr(job, name, told)


def tells_where_it_is():
    """Where `TOLD_AT` names it says so in the folder `THERE`, and waits for `go_on`; once."""
    name, there = {"train": "train_policy", "rollout": "roll_out"}[os.environ["TOLD_AT"]], Path(os.environ["THERE"])
    original, calls = getattr(job, name), []

    def tell(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            told = there / f"rank{os.environ['RANK']}"
            new = there / f"new{os.environ['RANK']}"
            new.write_text(str(os.getpid()))
            new.rename(told)
            while not (there / "go_on").exists():
                time.sleep(0.02)
            time.sleep(3600 if name == "roll_out" else 0)
        return original(*args, **kwargs)

    setattr(job, name, tell)


def draws_with_workers_and_tells():
    """The same, with prompts that two workers of a DataLoader bring; asked for one when it goes on."""
    drawn = []
    original = job.roll_out

    def roll_out(*args, **kwargs):
        if not drawn:
            drawn.append(iter(DataLoader(range(10**6), batch_size=4, num_workers=2)))
        next(drawn[0])
        return original(*args, **kwargs)

    job.roll_out = roll_out
    tells_where_it_is()
