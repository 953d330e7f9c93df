"""Non-persistent checkpoints that an attempt left before its first commit, or before a start over."""

from pathlib import Path

import pytest

from support import PROGRAMS
from support.pretraining import Pretraining, undisturbed_pretraining
from support.runs import Server

COUNTS = """
import megatron_resume.auto
import megatron_resume


class Prompts:
    drawn = 0

    def state_dict(self):
        return {"drawn": self.drawn}

    def load_state_dict(self, state):
        self.drawn = state["drawn"]


"""
BUILDS = "pg_collection=None):\n"


@pytest.fixture
def job(server: Server, tmp_path: Path) -> Pretraining:
    made = Pretraining(server, tmp_path / "run")
    made.argv += ["--non-persistent-save-interval", "1", "--non-persistent-ckpt-type", "global"]
    made.argv += ["--load", str(tmp_path / "run" / "checkpoints")]
    return made


def test_a_start_over_begins_at_the_first_iteration(server: Server, shared_folder: Path, job: Pretraining) -> None:
    job.killed("train_step@policy:6", committed=3)
    job.argv.append("--start-over")
    log = job.finish()
    left = job.output / "checkpoints/non_persistent/iter_0000005"
    assert f"{left} holds a checkpoint of policy by an earlier attempt and is not used" in log
    assert job.losses[-1].read_text().startswith("1 ")
    assert job.effective() == undisturbed_pretraining(server, shared_folder).effective()


def test_a_stock_job_goes_on_from_one_as_often_as_it_dies_before_its_first_commit(
    server: Server, shared_folder: Path, job: Pretraining
) -> None:
    for _ in range(2):
        job.killed("train_step@policy:2")
    assert "attempt 3 adopts iteration 2 of policy" in job.finish()
    assert job.effective() == undisturbed_pretraining(server, shared_folder).effective()


def test_what_is_tracked_begins_anew_with_the_model(server: Server, shared_folder: Path, job: Pretraining) -> None:
    text = (PROGRAMS / "stock_pretrain.py").read_text()
    assert text.count(BUILDS) == 1
    job.script = job.output / "pretrain.py"
    job.script.write_text(COUNTS + text.replace(BUILDS, f"{BUILDS}    megatron_resume.track('prompts', Prompts())\n"))
    job.killed("train_step@policy:3")
    log = job.finish()
    left = job.output / "checkpoints/non_persistent/iter_0000002"
    assert f"{left} holds a checkpoint of policy by an earlier attempt and is not used" in log
    assert job.losses[-1].read_text().startswith("1 ")
    assert job.effective() == undisturbed_pretraining(server, shared_folder).effective()
