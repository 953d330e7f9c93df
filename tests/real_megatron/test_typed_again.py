"""The same command typed again and again, where job id and port stay the same: each start goes on from the last one."""

import random
import socket
from pathlib import Path

from support.pretraining import Pretraining
from support.runs import Server


def test_ten_starts_in_a_row_are_ten_resumes(server: Server, tmp_path: Path) -> None:
    """As in an salloc shell, or in a loop of an sbatch file, with --master-port typed."""
    job = Pretraining(server, tmp_path / "job", "--exit-interval", "1", "--train-iters", "12")
    same = {"SLURM_JOB_ID": "77", "TORCHELASTIC_RUN_ID": "none", "MASTER_PORT": str(a_free_port())}
    for number in range(1, 12):
        log = job.finish(**same)
        begins = "starts fresh" if number == 1 else f"resumes from iteration {number - 1} of attempt {number - 1}"
        assert f"attempt {number} {begins}" in log
    assert list(job.effective()) == list(range(1, 12))


def a_free_port() -> int:
    """Below those that the kernel and the job server give."""
    while True:
        with socket.socket() as probe:
            try:
                probe.bind(("", port := random.randrange(15_000, 20_000)))
            except OSError:
                continue
            return port
