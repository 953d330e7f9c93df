"""Megatron's own pretraining loop on two ranks, of which one is killed after its third step, once.

recovering_rank.py STEPS FLAGS: rank 0 appends the time of each step that is done to the file STEPS, and rank 1 that of
its death.
"""

import os
import runpy
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "examples" / "megatron"))

from cpu import megatron_gaps, stand_in  # noqa: E402

stand_in.install()

import megatron.core.datasets.utils as dataset_utils  # noqa: E402
import megatron.training.training as training  # noqa: E402

STEPS = Path(sys.argv.pop(1))
rank, restart = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
train_step, done = training.train_step, []


def tell(what: str) -> None:
    with STEPS.open("a") as file:
        file.write(f"{what} {restart} {time.monotonic()}\n")


def timed(*args, **kwargs):  # type: ignore[no-untyped-def]
    if restart == 0 and rank == 1 and len(done) == 3:
        tell("killed")
        os.kill(os.getpid(), signal.SIGKILL)
    result = train_step(*args, **kwargs)
    done.append(1)
    if rank == 0:
        tell("step")
    return result


if __name__ == "__main__":
    dataset_utils.compile_helpers = lambda: None
    training.train_step = timed
    megatron_gaps.fill()
    runpy.run_path(str(ROOT / "tests" / "support" / "programs" / "stock_pretrain.py"), run_name="__main__")
