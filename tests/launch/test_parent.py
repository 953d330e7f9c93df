"""`launch` restarts what can go on, ends what cannot with its true code, and leaves nobody behind. Real torchrun."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from megatron_resume.processes import descendants
from support import PROGRAMS, TESTS
from support.launched_ranks import RANK, Launched
from support.pool import Pool, run
from support.programs.forked_launch import ABANDONED_S, COMM
from support.waiting import until

CLOSED = """
import os, runpy, sys
os.closerange(0, 2)
sys.stdin = sys.stdout = None
runpy.run_path({program!r}, run_name="__main__")
"""


@pytest.fixture
def launched(torch_pool: Pool, tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    """Forked, unless it is to be `as_typed`: then each process is started as a person's launch starts it."""
    made: list[Launched] = []

    def make(how: str, policy: str = "", folder: Path = tmp_path, *, as_typed: bool = False) -> Launched:
        folder.mkdir(exist_ok=True)
        made.append(Launched(folder, how, policy, pool=None if as_typed else torch_pool))
        return made[-1]

    yield make
    for one in made:
        one.process.close()


def test_after_the_death_of_the_agent_the_job_finishes(launched: Callable[..., Launched]) -> None:
    job = launched("agent killed")
    code, out = job.end()
    assert (code, job.ranks_done) == (0, ["done0", "done1"]), out
    assert "the launch engine was killed; it is started again" in out


def test_an_engine_that_is_no_program_is_named(tmp_path: Path) -> None:
    engine = tmp_path / "ft_launcher"
    engine.write_bytes(b"\x7fELF")
    engine.chmod(0o755)
    options = ["--engine", "nvrx", "--nvrx-version", "0.4", "--ft-launcher", str(engine)]
    command = [sys.executable, "-m", "megatron_resume", "launch", *options, "--", str(RANK)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 78
    assert f"{engine} cannot be started: Exec format error" in ended.stderr


@pytest.mark.parametrize("as_typed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_without_an_output_the_code_is_that_of_the_job(torch_pool: Pool, tmp_path: Path, as_typed: bool) -> None:
    (tmp_path / "rank.py").write_text("raise SystemExit(78)")
    words = ("-m", "megatron_resume", "launch", "--", str(tmp_path / "rank.py"))
    if as_typed:
        typed = ["bash", "-c", 'exec "$0" "$@" <&- >&-', sys.executable, *words]
        ended = subprocess.run(typed, stderr=subprocess.PIPE, text=True)
    else:
        (tmp_path / "closed.py").write_text(CLOSED.format(program=str(PROGRAMS / "forked_launch.py")))
        environ = {**os.environ, COMM: "closed", "PYTHONPATH": str(TESTS)}
        ended = run(torch_pool, tmp_path / "closed.py", *words[2:], environ=environ)
    assert ended.returncode == 78, ended.stderr
    assert "exit code 78" in ended.stderr


@pytest.mark.parametrize("as_typed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_after_the_death_of_a_rank_the_job_finishes_and_what_it_left_behind_is_ended_meanwhile(
    launched: Callable[..., Launched], monkeypatch: pytest.MonkeyPatch, as_typed: bool
) -> None:
    monkeypatch.setenv(ABANDONED_S, "0.5")
    job = launched("leaves", as_typed=as_typed)
    code, out = job.end()
    assert (code, job.ranks_done) == (0, ["done0", "done1"]), out
    assert len(job.pids) == 4
    assert job.nobody_lives()


def test_a_hang_without_restarts_left_ends_the_job_with_201(launched: Callable[..., Launched]) -> None:
    job = launched("hang", "{max_restarts: 0, hang: {timeout: 3s}}")
    code, out = job.end()
    assert code == 201, out
    assert "no progress in setup for 3." in out
    assert len(job.pids) == 2
    assert job.nobody_lives()


@pytest.mark.slow
def test_the_first_restart_reaches_its_first_step_in_20_of_20(
    launched: Callable[..., Launched], tmp_path: Path
) -> None:
    for number in range(20):
        job = launched("steps", folder=tmp_path / str(number), as_typed=True)
        code, out = job.end()
        assert code == 0, out
        assert {path.name.split(".")[1] for path in job.folder.glob("step0.*")} == {"0", "1"}
        assert len(list(job.folder.glob("started*.0"))) == 2


def test_a_fatal_end_of_a_rank_is_that_of_the_job_and_is_not_repeated(launched: Callable[..., Launched]) -> None:
    job = launched("fatal", "grace_period: 0.5s")
    code, out = job.end()
    assert code == 78, out
    assert "rank 1 ended with exit code 78, which no restart mends" in out
    assert len(job.pids) == 2
    assert job.nobody_lives()


def test_without_restarts_left_the_job_ends_with_the_code_of_its_rank(launched: Callable[..., Launched]) -> None:
    job = launched("error", "{max_restarts: 1, grace_period: 0.5s}")
    code, out = job.end()
    assert code == 7, out
    assert len(job.pids) == 4
    assert job.nobody_lives()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGUSR2", "SIGQUIT"])
def test_stopped_it_stops_all_and_says_so(launched: Callable[..., Launched], name: str) -> None:
    """Also by what Slurm's --signal=USR1@120 or a node's operator sends, which would kill it and all below it."""
    job = launched("sleep", "grace_period: 2s")
    job.until_all_sleep()
    job.process.send_signal(signal.Signals[name])
    code, out = job.end()
    assert code == 128 + signal.SIGTERM, out
    assert f"asked to stop by {name}; ranks have 2s to save and end" in out
    assert job.nobody_lives()


def test_a_signal_that_the_policy_leaves_out_is_not_noticed(launched: Callable[..., Launched]) -> None:
    job = launched("sleep", "{grace_period: 2s, stop_signals: [SIGTERM, SIGINT]}")
    job.until_all_sleep()
    for number in (signal.SIGUSR1, signal.SIGQUIT, signal.SIGINT):
        job.process.send_signal(number)
        time.sleep(0.3)  # or it would be SIGINT that came first
    code, out = job.end()
    assert code == 128 + signal.SIGTERM, out
    assert "asked to stop by SIGINT" in out


def test_a_rank_that_left_with_everything_saved_ends_the_job_with_202(launched: Callable[..., Launched]) -> None:
    job = launched("stopped", "grace_period: 2s")
    code, out = job.end()
    assert code == 202, out
    assert job.nobody_lives()


@pytest.mark.parametrize("who", ["the parent", "the watcher"])
def test_killed_itself_it_leaves_nobody_behind(launched: Callable[..., Launched], who: str) -> None:
    job = launched("sleep")
    job.until_all_sleep()
    watcher = descendants(job.process.pid)[0]
    os.kill(job.process.pid if who == "the parent" else watcher, signal.SIGKILL)
    until(job.nobody_lives)
    assert job.end()[0] in (-signal.SIGKILL, 128 + signal.SIGKILL)


def test_what_is_no_script_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "megatron_resume", "launch", "--", str(tmp_path / "nothing.py")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 78
    assert "nothing.py is no file; write the training script and its arguments after `--`" in ended.stderr


def test_an_engine_that_says_it_saw_no_progress_is_not_started_again() -> None:
    run = (
        "import sys; from megatron_resume.launch.job import Rendered; from megatron_resume.launch.parent import launch;"
        "from megatron_resume.policy import Policy;"
        "sys.exit(launch(Policy(), Rendered(('sh', '-c', 'echo started; exit 93'), {}, {}, (), gave_up=(93,))))"
    )
    ended = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (70, "started\n")
    assert "given up: the launch engine saw no progress (exit code 93)" in ended.stderr
