"""examples/minimal.py, the loop that README shows, run undisturbed, killed in mid-episode, and typed again."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import PROGRAMS, ROOT
from .runs import Server

MINIMAL = ROOT / "examples" / "minimal.py"
WITHOUT_GPU = PROGRAMS / "without_gpu.py"
STEPS = range(1, 13)  # two an episode, saved after every second episode
FLAGS = "--train-iters 12 --save-interval 4 --micro-batch-size 16 --global-batch-size 64 --distributed-backend gloo"
FLAGS += " --num-layers 1 --hidden-size 32 --num-attention-heads 2 --seq-length 32 --max-position-embeddings 32"
FLAGS += " --transformer-impl local --no-gradient-accumulation-fusion --no-masked-softmax-fusion --no-bias-gelu-fusion"
FLAGS += " --no-bias-dropout-fusion --no-persist-layer-norm"
IN_MID_EPISODE = "train_step@policy:8"  # the second step of the fourth episode


def arguments(folder: Path) -> list[str]:
    ours = ["--save", str(folder), "--data-checkpoint-path", str(folder / "data_checkpoint")]
    return [*ours, *FLAGS.split()]


def torchrun(folder: Path, *flags: str, script: Path = MINIMAL, **more: str) -> tuple[int, str]:
    """Its exit code, and what all ranks said; `more` of the environment."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    command += ["--rdzv-endpoint", "localhost:0", str(WITHOUT_GPU), str(script), *arguments(folder), *flags]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", **more}
    done = subprocess.run(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    return done.returncode, done.stdout


def from_server(server: Server, folder: Path, crash: str = "", *flags: str) -> tuple[int, str]:
    """The same without the seconds of imports, and with more of Megatron's flags."""
    log, env = folder.with_suffix(".log"), {"MEGATRON_RESUME_CRASH": crash}
    job: dict[str, Any] = {"name": "minimal", "script": str(MINIMAL), "log": str(log), "fork_helpers": True}
    ended = server.run(**job, argv=[*arguments(folder), *flags], env=env)
    return ended["code"], log.read_text(errors="replace")


def trace(log: str) -> dict[tuple[int, int], str]:
    """(iteration, rank) -> all that was said of it, where each number stands for its bits."""
    return {(said["iteration"], said["rank"]): json.dumps(said) for said in _said(log)}


def _said(log: str) -> Iterator[dict[str, Any]]:
    for begin in re.finditer('{"iteration"', log):  # not always at the start of a line, since ranks share the log
        yield json.JSONDecoder().raw_decode(log[begin.start() :])[0]


def check_exact(undisturbed: tuple[int, str], killed: tuple[int, str], resumed: tuple[int, str]) -> None:
    """Both lives of the job that was killed say what the undisturbed one says, and nothing is left out."""
    assert undisturbed[0] == resumed[0] == 0, undisturbed[1][-3000:] + resumed[1][-3000:]
    assert killed[0] != 0
    assert "crash point train_step@policy (time 8): SIGKILL" in killed[1], killed[1][-6000:]
    assert "resumes from iteration 4 of attempt 1 (next episode 2, 256 samples consumed" in resumed[1]
    whole, before, after = trace(undisturbed[1]), trace(killed[1]), trace(resumed[1])
    assert sorted(whole) == [(step, rank) for step in STEPS for rank in (0, 1)]
    assert before.items() <= whole.items()
    assert {(step, rank) for step in range(1, 7) for rank in (0, 1)} <= before.keys()
    assert max(before) < (8, 0), "it was killed in mid-episode"
    assert after == {where: said for where, said in whole.items() if where[0] > 4}


def check_on_another_megatron(server: Server, folder: Path) -> None:
    undisturbed = from_server(server, folder / "undisturbed")
    killed = from_server(server, folder / "killed", IN_MID_EPISODE)
    check_exact(undisturbed, killed, from_server(server, folder / "killed"))
