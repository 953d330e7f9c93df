"""Processes that a rank needs for its last save outlive a SIGTERM to all, and end with the rank."""

import signal
import subprocess
import sys

PROGRAM = """
import multiprocessing, os, signal, sys, time
from megatron_resume.adapter.helper_processes import kill_all, that_outlive_sigterm

if __name__ == "__main__":
    spawn = multiprocessing.get_context("spawn")
    with that_outlive_sigterm():
        queue = spawn.Manager().Queue()
        worker = spawn.Process(target=time.sleep, args=(600,), daemon=True)
        worker.start()
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    signal.signal(signal.SIGTERM, lambda *_: None)
    os.killpg(0, signal.SIGTERM)
    queue.put(1)
    worker.join(0.5)
    print(queue.get(), worker.is_alive(), flush=True)
    END
"""


def run(end: str, path: str) -> subprocess.CompletedProcess[str]:
    with open(path, "w") as file:
        file.write(PROGRAM.replace("END", end))
    return subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=300, start_new_session=True)


def test_they_outlive_it_and_python_does_not_wait_for_them_at_its_end(tmp_path: object) -> None:
    done = run("sys.exit(202)", f"{tmp_path}/program.py")
    assert (done.returncode, done.stdout) == (202, "1 True\n"), done.stderr


def test_a_rank_that_dies_without_python_takes_them_along(tmp_path: object) -> None:
    done = run("kill_all(); os._exit(128 + signal.SIGTERM)", f"{tmp_path}/program.py")  # a pipe that is left would wait
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "1 True\n"), done.stderr
