"""Who writes a save: a process that stands still, a start that lost the names of its folders to another."""

import ctypes
import os
import signal
import time
from pathlib import Path

from megatron.core.dist_checkpointing.strategies import filesystem_async
from rlhf import job

from megatron_resume.adapter import ranks, session
from megatron_resume.checkpoint import fencing


def holds_a_writer():
    """The process that writes policy's shard of iteration 4 stands still before it opens the file."""
    report = Path(os.environ["HELD"])

    def hold_then_open(path, mode):
        if "iter_0000004" not in str(path) or not Path(path).name.startswith("__0_") or report.exists():
            return open(path, mode)
        os.setsid()  # out of reach of whoever ends the job's session,
        ctypes.CDLL(None).prctl(1, 0)  # and of the death of its parent
        with report.open("w", buffering=1) as told:
            told.write(f"{os.getpid()}\n")
            os.kill(os.getpid(), signal.SIGSTOP)
            try:
                return open(path, mode)
            except OSError as error:
                told.write(f"{type(error).__name__}\n")
                raise
            finally:
                told.write("went on\n")

    def save_and_wait(iteration, *args, **kwargs):
        result = save(iteration, *args, **kwargs)
        while iteration == 4 and not report.exists():  # else this rank may be dead before its worker has anything
            time.sleep(0.02)
        return result

    save, job.save_checkpoint = job.save_checkpoint, save_and_wait
    filesystem_async.open = hold_then_open


def another_start_takes_the_names_and_withdraws():
    """As one with --take-over does that is refused when it has fenced policy already."""
    save = job.save_checkpoint

    def lose_the_name_before(iteration, *args, **kwargs):
        if iteration == 4 and ranks.rank() == 0:
            fencing.take_names(session.current().root, "policy", before=2)
        return save(iteration, *args, **kwargs)

    job.save_checkpoint = lose_the_name_before
