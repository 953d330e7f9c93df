"""Times of real saves on two ranks, with our hooks and without them in turn: for benchmarks of saves."""

import json
import operator
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from support.pool import Pool
from support.runs import Server

RANK = Path(__file__).with_name("saving_rank.py")
FLAGS = """
    --seq-length 32 --max-position-embeddings 32 --micro-batch-size 1 --global-batch-size 2 --train-iters 10
    --lr 1e-3 --distributed-backend gloo --transformer-impl local --no-gradient-accumulation-fusion
    --tokenizer-type NullTokenizer --vocab-size 128 --no-masked-softmax-fusion --no-bias-gelu-fusion
    --no-bias-dropout-fusion --no-persist-layer-norm --no-rope-fusion --disable-bias-linear
    --normalization RMSNorm --position-embedding-type rope --mock-data --save-interval 1
    --use-distributed-optimizer --ckpt-format torch_dist --trained-roles policy
"""
SMALL = ("--num-layers", "2", "--hidden-size", "32", "--num-attention-heads", "4")
LARGE = ("--num-layers", "6", "--hidden-size", "768", "--num-attention-heads", "12")
ASYNC = ("--async-save", "--use-persistent-ckpt-worker", "--async-strategy", "mcore")


@dataclass(frozen=True)
class Times:
    """In ms, one in each list per round. Of two ranks the slower one counts: each time, or for ours as a whole."""

    stock: list[float]  # a save of Megatron without us
    hooked: list[float]  # the same with our hooks
    ours: list[float]  # of that, inside our wrappers
    ours_cpu: list[float]  # of that, CPU time of the training thread
    checkpoint_bytes: int

    @property
    def paired(self) -> float:
        """How much longer a save with us took than the one without us beside it; as noisy as the machine is."""
        return statistics.median(map(operator.sub, self.hooked, self.stock))


def time_saves(rounds: int, *flags: str) -> Times:
    """Save `rounds` times with our hooks and as often without them."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        report, log = base / "report", base / "log"
        paths = ("--save", str(base / "policy"), "--data-checkpoint-path", str(base / "data_checkpoint"))
        argv = [str(rounds), str(report), *FLAGS.split(), *paths, *flags]
        job = {"name": "saves", "script": str(RANK), "argv": argv, "log": str(log)}
        pool = Pool(base, os.getpid())
        try:
            ended = Server(pool).run(**job, env={"MEGATRON_RESUME_CRASH": None}, timeout=300, fork_helpers=True)
        finally:
            pool.close()
        if ended["code"] != 0:
            raise SystemExit(f"the ranks ended with {ended['codes']}:\n{log.read_text()[-4000:]}")
        ranks = [json.loads(Path(f"{report}{rank}").read_text()) for rank in range(2)]
        assert ranks[0]["committed"] > rounds, "a hooked save was not committed"
        together = {kind: list(map(max, ranks[0][kind], ranks[1][kind])) for kind in ("stock", "hooked")}
        # Each rank's own work, so what disturbs the one says nothing of the other.
        own = {kind: max(ranks[0][kind], ranks[1][kind], key=statistics.median) for kind in ("ours", "ours_cpu")}
        return Times(**together, **own, checkpoint_bytes=ranks[0]["checkpoint_bytes"])
