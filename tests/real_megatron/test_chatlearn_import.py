"""A job whose only data checkpoint is ChatLearn's goes on, on real Megatron, at its own next episode and iteration."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from megatron_resume.checkpoint.layout import PointName
from support.chatlearn_files import ChatLearnJob
from support.job_on_disk import contents
from support.runs import ALONE, ITERATIONS_PER_EPISODE, Run

FIRST = PointName(ITERATIONS_PER_EPISODE, 1)


def imported(run: Run, job: ChatLearnJob, *options: str) -> subprocess.CompletedProcess[str]:
    models = [word for role, path in job.models.items() for word in (f"--{role}-load", str(path))]
    command = [sys.executable, "-m", "megatron_resume", "import-chatlearn", str(job.data), *models]
    return subprocess.run([*command, "--to", str(run.data_checkpoint), *options], capture_output=True, text=True)


@pytest.fixture(scope="module")
def gone_over(interrupted: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Killed between the saves of its second episode, imported, killed after its next commit, run to its end."""
    run = Run(
        interrupted.server, tmp_path_factory.mktemp("gone_over") / "run", interrupted.flags, interrupted.num_ranks
    )
    shutil.copytree(interrupted.output, run.output)
    shutil.rmtree(run.data_checkpoint)
    job = ChatLearnJob(run.output, iterations_per_episode=ITERATIONS_PER_EPISODE)
    job.save_data(FIRST.iteration)
    before = contents(job.data), contents(run.output / "checkpoints")
    refused = imported(run, job)
    assert refused.returncode == 78
    assert "the tracker of policy is at 4, the data is of iteration 2" in refused.stderr
    done = imported(run, job, "--step", "2")
    assert done.returncode == 0, done.stderr
    assert (contents(job.data), contents(run.output / "checkpoints")) == before
    run.killed("commit.end")
    run.finish()
    return run


def test_it_goes_on_at_chatlearns_next_episode_and_samples(gone_over: Run) -> None:
    line = gone_over.starts[0].line("resumes from")
    assert f"attempt 2 resumes from {FIRST} (next episode 1, 16 samples consumed, " in line


def test_all_prompts_iterations_and_learning_rates_are_those_of_the_undisturbed_run(
    gone_over: Run, undisturbed: Callable[[str], Run]
) -> None:
    def seen(run: Run) -> list[tuple[Any, ...]]:
        return [(x["iteration"], x["episode"], sorted(x["prompt_ids"]), x["lr"]) for x in run.trace()]

    assert seen(gone_over) == seen(undisturbed(ALONE))


def test_after_its_first_save_it_goes_on_as_any_job(gone_over: Run) -> None:
    killed, ended = gone_over.starts
    assert f"attempt 3 resumes from {PointName(2 * ITERATIONS_PER_EPISODE, 2)}" in ended.line("resumes from")
    assert "says nothing" in killed.log
    assert not any(text in ended.log for text in ("says nothing", "nothing is compared", "no tracked state"))


@pytest.mark.parametrize(
    "unknown",
    [
        "policy: Megatron loaded {'consumed_train_samples': 32, 'scheduler_steps': 32}, of which .* says nothing",
        "value: Megatron loaded .*, of which .* says nothing",
        "policy: .* does not say with what configuration it was saved; nothing is compared",
        "holds no tracked state, as an imported one: 'kl_controller' begins as the script made it",
    ],
)
def test_what_the_import_could_not_know_is_said_once(gone_over: Run, unknown: str) -> None:
    assert "WARNING" in gone_over.starts[0].line(unknown)


def test_what_megatron_loads_is_still_compared_with_the_imported_iteration(interrupted: Run, tmp_path: Path) -> None:
    """The models are of iteration 2; a person names them as 4, by renaming their folders."""
    run = replace(interrupted, output=tmp_path / "run", starts=[])
    shutil.copytree(interrupted.output, run.output)
    shutil.rmtree(run.data_checkpoint)
    job = ChatLearnJob(run.output, iterations_per_episode=ITERATIONS_PER_EPISODE)
    job.save_data(4)
    for path in job.models.values():
        shutil.rmtree(path / "iter_0000004", ignore_errors=True)
        (path / "iter_0000002").rename(path / "iter_0000004")
        (path / "latest_checkpointed_iteration.txt").write_text("4")
    assert imported(run, job).returncode == 0
    ended = run.start()
    assert ended.refused_with == 65, ended.log[-4000:]
    assert "was saved with {'iteration': 4}, but Megatron loaded {'iteration': 2" in ended.log
