"""A job of one model needs one flag: no role is named, and no half of a point is ever waited for in vain."""

import json
from pathlib import Path
from typing import Any

import pytest

from megatron_resume.checkpoint.folder import read_start
from support import minimal
from support.job_on_disk import contents
from support.pretraining import Pretraining, undisturbed_pretraining
from support.runs import Server


def without_roles(run: Pretraining, *flags: str) -> Pretraining:
    at = run.argv.index("--trained-roles")
    run.argv[at : at + 2] = flags
    return run


def test_a_stock_script_resumes_with_one_flag(server: Server, shared_folder: Path, tmp_path: Path) -> None:
    run = without_roles(Pretraining(server, tmp_path / "run"))
    run.killed("commit.end")
    assert "attempt 2 resumes from iteration 3 of attempt 1" in run.finish()
    assert run.effective() == undisturbed_pretraining(server, shared_folder).effective()
    status = run.status()
    assert (status["trained_roles"], status["point"]) == (["policy"], {"iteration": 8, "attempt": 2})


@pytest.mark.slow
def test_grpo_resumes_with_one_flag(server: Server, shared_folder: Path, tmp_path: Path) -> None:
    base = Pretraining(server, tmp_path / "base", "--exit-interval", "3")
    base.finish()
    digests = tmp_path / "references.txt"
    flags = ("--pretrained-checkpoint", str(base.output / "checkpoints"))
    run = without_roles(Pretraining(server, tmp_path / "run", *flags))
    run.killed("commit.end", REFERENCE=str(digests))
    assert "resumes from iteration 3 of attempt 1" in run.finish(REFERENCE=str(digests))
    fresh, resumed = digests.read_text().split()
    assert fresh == resumed


@pytest.fixture(scope="module")
def half(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Pretraining, str]:
    """A job that names a second role, of which there is no process."""
    run = Pretraining(server, tmp_path_factory.mktemp("half") / "run")
    without_roles(run, "--resume-role", "policy", "--trained-roles", "policy,value")
    code, log = run.start()
    assert code == 78, log[-3000:]
    return run, log


def test_a_role_that_no_process_began_is_warned_of_once_and_ends_the_second_save(
    half: tuple[Pretraining, str],
) -> None:
    run, log = half
    assert log.count("no process began value in attempt 1, so no save of policy can be committed") == 1 + 2, (
        "each rank ends"
    )
    assert "WARNING" in next(line for line in log.splitlines() if "policy of iteration 3: no process began" in line)
    assert "policy was saved at iteration 3 and is to be saved at 6" in log
    assert "A job of policy alone: --trained-roles policy." in log
    assert list(run.effective()) == list(range(1, 7))


def test_a_fresh_start_leaves_what_was_never_committed_in_its_place(half: tuple[Pretraining, str]) -> None:
    run, _ = half
    saves = run.output / "checkpoints"
    before = contents(saves / "iter_0000003")
    without_roles(run)
    at = run.argv.index("--resume-role")
    del run.argv[at : at + 2]
    code, log = run.start(crash="save.begin@policy")
    assert (code, "crash point save.begin@policy" in log) == (-9, True), log[-3000:]
    assert "holds iteration 3 of earlier attempts, never committed to a resume point; each stays until" in log
    moved = saves / "abandoned" / "a0002" / "iter_0000003"
    assert contents(moved) == before, "moved when a save took its place, and no sooner"


def of_example(server: Server, folder: Path, *flags: str, crash: str = "") -> tuple[int, str]:
    log = folder.with_suffix(".log")
    job: dict[str, Any] = {"name": "minimal", "script": str(minimal.MINIMAL), "log": str(log), "fork_helpers": True}
    argv, env = [*minimal.arguments(folder), *flags], {"MEGATRON_RESUME_CRASH": crash}
    return server.run(**job, argv=argv, env=env)["code"], log.read_text(errors="replace")


def test_roles_that_the_script_names_while_it_loads_are_all_of_one_point(server: Server, tmp_path: Path) -> None:
    base = ("--load", str(tmp_path / "nothing"))  # so that policy is loaded before value is named
    code, log = of_example(server, tmp_path / "run", *base, crash=minimal.IN_MID_EPISODE)
    assert (code, "committed iteration 4 of attempt 1 (policy, value," in log) == (-9, True), log[-3000:]
    root = tmp_path / "run" / "data_checkpoint"
    assert read_start(root, 1).config["trained_roles"] == ["policy", "value"]
    leases = [json.loads((root / "attempts/0001" / f"{role}.lease").read_bytes()) for role in ("policy", "value")]
    assert leases[0]["holder"] == leases[1]["holder"]
    code, log = of_example(server, tmp_path / "run", *base)
    assert (code, "resumes from iteration 4 of attempt 1" in log) == (0, True), log[-3000:]
