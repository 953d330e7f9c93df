"""A rank whose checkpoint worker was killed ends with the cause named, instead of waiting for it until it is a hang."""

import re
from pathlib import Path

import pytest

from support import PROGRAMS, minimal
from support.pretraining import MCORE_ASYNC, Pretraining, undisturbed_pretraining
from support.runs import Server

# The kernel kills one helper of rank 1, as where memory is out: of these kinds, in the order in which they begin.
STRIKES = """
import multiprocessing, os, signal, threading, time
import megatron_resume.auto


before = set(multiprocessing.process._children)  # of the stand-in for a machine with GPUs


def strike():
    helpers = []
    while len(helpers) <= int(os.environ["STRIKES"]) or not os.path.exists(os.environ["WHEN"]):
        time.sleep(0.01)
        helpers = sorted(one.pid for one in set(multiprocessing.process._children) - before)
    time.sleep(0.2)  # the last one is known by then
    os.kill(helpers[int(os.environ["STRIKES"])], signal.SIGKILL)


if "STRIKES" in os.environ and os.environ["RANK"] == "1":
    threading.Thread(target=strike, daemon=True).start()
"""
PERSISTENT = (*MCORE_ASYNC, "--use-persistent-ckpt-worker")


def check_told(log: str) -> None:
    told = [line for line in log.splitlines() if "a helper of rank 1" in line and "ERROR" in line]
    assert len(told) == 1, log[-4000:]
    assert re.search(r"process \d+ \(.*\), a helper of rank 1, was killed by SIGKILL\. The rank would wait", told[0])


def test_a_killed_worker_ends_its_rank_and_the_next_start_goes_on(
    server: Server, shared_folder: Path, tmp_path: Path
) -> None:
    job = Pretraining(server, tmp_path / "job", *PERSISTENT)
    job.script = tmp_path / "pretrain.py"
    job.script.write_text(STRIKES + (PROGRAMS / "stock_pretrain.py").read_text())
    code, log = job.start(STRIKES="0", WHEN=str(job.output / "losses0.txt"))
    assert code == 137, log[-4000:]
    check_told(log)
    job.finish()
    assert job.effective() == undisturbed_pretraining(server, shared_folder).effective()


@pytest.mark.slow
def test_so_does_one_that_the_server_of_multiprocessing_started(tmp_path: Path) -> None:
    """As Megatron has it under torchrun: the worker is no child of its rank."""
    script, folder = tmp_path / "loop.py", tmp_path / "run"
    text = minimal.MINIMAL.read_text().replace("Path(__file__)", f"Path({str(minimal.MINIMAL)!r})")
    script.write_text(STRIKES + "\n".join(line for line in text.splitlines() if "__future__" not in line))
    saved = folder / "policy" / "latest_checkpointed_iteration.txt"
    code, log = minimal.torchrun(folder, *PERSISTENT, script=script, STRIKES="0", WHEN=str(saved))
    assert code != 0
    check_told(log)
    code, log = minimal.torchrun(folder, *PERSISTENT)
    assert code == 0, log[-3000:]
    assert "resumes from iteration" in log


def test_helpers_that_their_owner_ends_are_nobodys_death(server: Server, shared_folder: Path, tmp_path: Path) -> None:
    job = Pretraining(server, tmp_path / "job", *PERSISTENT)
    assert "a helper of rank" not in job.finish()
    assert job.effective() == undisturbed_pretraining(server, shared_folder).effective()
