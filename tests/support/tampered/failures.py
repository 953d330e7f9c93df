"""A rank, or a save, that fails once."""

import os
import sys
import time

from megatron.core import dist_checkpointing
from rlhf import job
from rlhf.job import Job

from megatron_resume.adapter import api, ranks


def fails_in_the_second_episode():
    """On rank 0; the other one waits for it, so that rank 0 is the first to end also on a busy machine."""
    begin = Job._episode

    def episode(self, number, report):
        if number == 1 and not api.progress().resume_training:
            if ranks.rank() != 0:
                time.sleep(3600)
            raise RuntimeError("the network is down")
        begin(self, number, report)

    Job._episode = episode


def sleeps_while_another_fails():
    """In the second rollout; the sleep stands for a collective that waits for the dead."""
    roll_out, calls = job.roll_out, []

    def second_fails(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            sys.exit(7) if os.environ["RANK"] == "1" else time.sleep(3600)
        return roll_out(*args, **kwargs)

    job.roll_out = second_fails


def a_save_fails_and_is_repeated():
    """As scripts do that want to survive a full disk for a moment."""
    write, save = dist_checkpointing.save, job.save_checkpoint
    calls = []

    def disk_full_once(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return write(*args, **kwargs)

    def try_twice(*args, **kwargs):
        try:
            return save(*args, **kwargs)
        except OSError:
            return save(*args, **kwargs)

    dist_checkpointing.save, job.save_checkpoint = disk_full_once, try_twice
