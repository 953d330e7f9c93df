"""`launch --engine nvrx` with the ft_launcher of .venv-nvrx: the same promises as with torchrun, and its heartbeats."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from megatron_resume.launch import nvrx
from megatron_resume.launch.job import Job
from megatron_resume.processes import descendants
from support import ROOT
from support.engines import DEFAULT
from support.launched_ranks import Launched
from support.waiting import until

VENV = ROOT / ".venv-nvrx"
FT_LAUNCHER = VENV / "bin" / "ft_launcher"
HEARTBEATS = Path(__file__).with_name("heartbeats.py")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (VENV / ".installed").exists(), reason="there is no .venv-nvrx; `make venv-nvrx` makes it"),
]


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    made: list[Launched] = []

    def make(how: str, policy: str = "") -> Launched:
        made.append(Launched(tmp_path, how, policy, ("--engine", "nvrx", "--ft-launcher", str(FT_LAUNCHER))))
        return made[-1]

    yield make
    for one in made:
        one.process.close()


def test_after_the_death_of_a_rank_the_job_finishes(launched: Callable[..., Launched]) -> None:
    job = launched("rank killed")
    code, out = job.end()
    assert (code, job.ranks_done) == (0, ["done0", "done1"]), out
    assert len(job.pids) == 4
    assert "attempts left; will restart worker group" in out  # ft_launcher's own words


def test_ranks_run_in_the_environment_of_launch_and_not_in_that_of_ft_launcher(
    launched: Callable[..., Launched],
) -> None:
    job = launched("nothing")
    code, out = job.end()
    assert code == 0, out
    assert (job.folder / "python").read_text().splitlines() == [sys.executable, "None"]


def test_after_the_death_of_the_agent_the_job_finishes(launched: Callable[..., Launched]) -> None:
    job = launched("agent killed")
    code, out = job.end()
    assert (code, job.ranks_done) == (0, ["done0", "done1"]), out
    assert "the launch engine was killed; it is started again" in out


def test_a_fatal_end_of_a_rank_is_that_of_the_job_and_is_not_repeated(launched: Callable[..., Launched]) -> None:
    job = launched("fatal", "grace_period: 5s")
    code, out = job.end()
    assert code == 78, out
    assert len(job.pids) == 2
    assert job.nobody_lives()


def test_killed_itself_launch_leaves_neither_ranks_nor_their_monitors_behind(
    launched: Callable[..., Launched],
) -> None:
    job = launched("sleep")
    job.until_all_sleep()
    below = descendants(job.process.pid)
    monitors = [pid for pid in below if b"--no-python" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(monitors) == 3  # ft_launcher, and one for each rank
    os.kill(job.process.pid, signal.SIGKILL)
    until(job.nobody_lives)
    until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in monitors))


def test_a_rank_whose_heartbeats_stop_is_ended_by_ft_launcher_and_the_job_finishes(tmp_path: Path) -> None:
    """What is rendered, with seconds in place of hours; in ft_launcher's environment, to which the ranks report."""
    job = Job((str(HEARTBEATS), str(tmp_path)), nproc_per_node=2, python=str(VENV / "bin" / "python"))
    rendered = nvrx.render(DEFAULT, job._replace(ft_launcher=str(FT_LAUNCHER), nvrx_version="0.4.1"))
    command = [re.sub(r"(--ft-rank-heartbeat-timeout)=\d+", r"\1=15", word) for word in rendered.command]
    command.insert(1, "--ft-workload-check-interval=0.5")
    assert "--ft-rank-heartbeat-timeout=15" in command
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "MEGATRON_RESUME_NO_WATCH": "1", "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert ended.returncode == 0, ended.stdout
    assert "Did not get subsequent heartbeat" in ended.stdout
    assert (tmp_path / "silent").exists()
    assert sorted(path.name for path in tmp_path.glob("done*")) == ["done1.0", "done1.1"]


def test_the_table_of_flags_is_that_of_its_help() -> None:
    shown = subprocess.run([FT_LAUNCHER, "--help"], capture_output=True, text=True, check=True).stdout
    flags = json.loads(Path(__file__).with_name("ft_launcher_flags.json").read_text())["0.4"]
    assert [flag for flag in flags if f"{flag}" not in re.split(r"[\s,]+", shown)] == []
