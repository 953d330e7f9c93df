"""A job that its command stops at an iteration or after a time is told as stopped, and goes on when typed again."""

from pathlib import Path

import pytest

from support.pretraining import OnPlainMegatron, Pretraining, undisturbed_pretraining
from support.runs import Server


def said(job: Pretraining) -> list[str]:
    return [process["says"] for attempt in job.status()["attempts"] for process in attempt["processes"]]


def test_a_planned_end_is_none_of_the_job(server: Server, shared_folder: Path, tmp_path: Path) -> None:
    job = Pretraining(server, tmp_path / "job", "--exit-interval", "4")
    log = job.finish()
    assert [line for line in log.splitlines() if "megatron_resume" in line][-1].endswith(
        "stopped at 4 of 8 by --exit-interval, and not done; the same command goes on from there"
    )
    assert "resumes from iteration 4 of attempt 1" in job.finish()
    assert said(job) == ["stopped at 4 of 8 by --exit-interval", "finished"]
    assert job.effective() == undisturbed_pretraining(server, shared_folder).effective()


@pytest.mark.parametrize(
    ("under", "code"), [({}, 0), ({"MEGATRON_RESUME_ENDINGS": "HERE"}, 202), ({"SLURM_JOB_ID": "7"}, 0)], ids=str
)
def test_under_launch_it_is_202_and_elsewhere_as_on_plain_megatron(
    server: Server, tmp_path: Path, under: dict[str, str], code: int
) -> None:
    environ = {name: str(tmp_path) if value == "HERE" else value for name, value in under.items()}
    job = Pretraining(server, tmp_path / "job", "--exit-duration-in-mins", "-1")
    ended, log = job.start(**environ)
    assert ended == code, log[-3000:]
    assert said(job) == ["stopped at 1 of 8 by --exit-duration-in-mins"]
    if not code:
        plain = OnPlainMegatron(server, tmp_path / "plain", "--exit-duration-in-mins", "-1")
        assert plain.start(**environ)[0] == 0
        assert list(plain.effective()) == list(job.effective()) == [1]
