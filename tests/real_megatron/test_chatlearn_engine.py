"""ChatLearn's engine, as a double, with trainers on real Megatron: killed twice, nothing differs."""

from pathlib import Path
from typing import Any

import pytest

from megatron_resume.checkpoint.folder import read_folder
from megatron_resume.checkpoint.layout import PointName
from support import PROGRAMS
from support.runs import Server, megatron_flags

SCRIPT = PROGRAMS / "chatlearn_engine.py"


class ChatLearn:
    """A job of three episodes of one iteration, each saved."""

    def __init__(self, server: Server, output: Path):
        self.server, self.output = server, output
        output.mkdir(parents=True)
        self.logs: list[str] = []

    def start(self, replicas: int = 2, dies: str = "", crash: str = "") -> int:
        log = self.output / f"start{len(self.logs)}.log"
        env = {"OUTPUT": str(self.output), "REPLICAS": str(replicas), "DIES": dies, "CRASH": crash}
        env |= {"MEGATRON_RESUME_LAUNCH_ID": f"{self.output.parent.name}/{len(self.logs)}"}
        job: dict[str, Any] = {"name": log.stem, "num_ranks": 1, "script": str(SCRIPT), "log": str(log), "env": env}
        flags = [*megatron_flags(self.output), "--global-batch-size", "4", "--micro-batch-size", "2"]
        code = int(self.server.run(**job, argv=flags, fork_helpers=True)["code"])
        self.logs.append(log.read_text())
        return code

    def trace(self) -> dict[str, str]:
        """Of each iteration what the last life that trained it saw."""
        lines = (self.output / "trace.txt").read_text().splitlines()
        return dict(line.split(" ", 1) for line in lines)

    def line(self, text: str, start: int = -1) -> str:
        (found,) = [line for line in self.logs[start].splitlines() if text in line]
        return found


@pytest.fixture(scope="module")
def undisturbed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> ChatLearn:
    job = ChatLearn(server, tmp_path_factory.mktemp("chatlearn") / "undisturbed")
    assert job.start() == 0, job.logs[-1][-6000:]
    return job


def test_killed_between_the_saves_and_before_the_commit_a_run_is_the_undisturbed_one(
    server: Server, undisturbed: ChatLearn, tmp_path: Path
) -> None:
    job = ChatLearn(server, tmp_path / "killed")
    assert job.start(dies="ppo_policy", crash="save.end@policy:2") != 0
    assert "crash point save.end" in job.logs[-1], job.logs[-1][-6000:]
    assert job.start(dies="policy", crash="data.end") != 0
    assert "crash point data.end" in job.logs[-1], job.logs[-1][-6000:]
    assert "attempt 2 resumes from iteration 1 of attempt 1 (next episode 1, 4 samples" in job.line("attempt 2 resumes")
    assert job.start(replicas=4) == 0, job.logs[-1][-6000:]
    assert job.trace() == undisturbed.trace()
    assert list(job.trace()) == ["1", "2", "3"]
    assert read_folder(job.output / "data").committed[-1] == PointName(3, 3)
    assert not (job.output / "data_checkpoint").exists(), "Megatron's own --data-checkpoint-path begins nothing"
    assert sorted(path.name for path in (job.output / "save_model").iterdir()) == ["ppo_policy", "ppo_value"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dies", "crash"),
    [
        ("ppo_policy", "attempt.begun"),
        ("ppo_value", "start.end"),
        ("ppo_policy", "train_step@policy:2"),
        ("ppo_value", "save.begin@value:2"),
        ("ppo_value", "model.synced@value:2"),
        ("policy", "write.written@data.json:2"),
        ("policy", "commit.end:2"),
    ],
)
def test_killed_anywhere_a_run_is_the_undisturbed_one(
    server: Server, undisturbed: ChatLearn, tmp_path: Path, dies: str, crash: str
) -> None:
    job = ChatLearn(server, tmp_path / "killed")
    assert job.start(dies=dies, crash=crash) != 0
    assert f"crash point {crash.partition(':')[0].partition('@')[0]}" in job.logs[-1], job.logs[-1][-6000:]
    assert job.start(replicas=1) == 0, job.logs[-1][-6000:]
    assert job.trace() == undisturbed.trace()
