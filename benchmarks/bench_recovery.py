"""Promise: from the death of a rank to the next train step it takes at most 1.05 times as long as without us.

Without us is the same start by bare torchrun, with the one setting that lets its restarts reach a step at all, and
Megatron's own `--load`. Both restart a pretraining run of two ranks, one beside the other and each first in turn; the
median of the ratios of these pairs counts, so that a machine which slows down between them slows both.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from megatron_resume.launch.torchrun import ENVIRON
from promise import Result, compile_package, main, result
from saves import FLAGS, SMALL

RANK = Path(__file__).with_name("recovering_rank.py")
ROUNDS = 12
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1")
LAUNCH = ("megatron_resume", "launch", "--nproc-per-node", "2", "--")
OPTIONS = "--train-iters 5 --save-interval 2 --eval-iters 0 --eval-interval 100 --log-interval 1 --vocab-size 256"
OPTIONS += " --dataloader-type single --no-check-for-nan-in-loss-and-grad"


def measure() -> Result:
    compile_package()
    ratios, floors = [], []
    for number in range(ROUNDS):
        order = (TORCHRUN, LAUNCH) if number % 2 == 0 else (LAUNCH, TORCHRUN)
        took_s = {launcher: _recovery(launcher) for launcher in order}
        ratios.append(took_s[LAUNCH] / took_s[TORCHRUN])
        floors.append(took_s[TORCHRUN])
    floor_s = round(statistics.median(floors), 2)
    return result("kill to next train step", ratios, 1.05, "times", seconds_without_us=floor_s)


def _recovery(launcher: tuple[str, ...]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        base, steps = Path(folder), Path(folder, "steps")
        saves = str(base / "policy")
        where = ["--save", saves, "--load", saves]
        if launcher == LAUNCH:
            where = ["--save", saves, "--data-checkpoint-path", str(base / "data"), "--trained-roles", "policy"]
        flags = FLAGS.replace("--trained-roles policy", "").split()
        environ = {**os.environ, **ENVIRON, "LOSSES": str(base / "losses"), "CUDA_VISIBLE_DEVICES": ""}
        with (base / "log").open("wb") as log:
            command = [sys.executable, "-m", *launcher, str(RANK), str(steps), *flags, *SMALL, *OPTIONS.split()]
            code = subprocess.call([*command, *where], env=environ, stdout=log, stderr=log)
        if code != 0:
            raise SystemExit(f"exit code {code} of {launcher[0]}:\n{(base / 'log').read_text()[-4000:]}")
        told = [line.split() for line in steps.read_text().splitlines()]
        killed = next(float(time_s) for what, _, time_s in told if what == "killed")
        return next(float(time_s) for what, restart, time_s in told if what == "step" and restart == "1") - killed


if __name__ == "__main__":
    sys.exit(main(measure))
