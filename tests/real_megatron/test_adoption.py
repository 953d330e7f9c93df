"""A run that has Megatron checkpoints already: they are adopted as the command names them, and never trained over."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from megatron_resume.checkpoint.adopted import of_attempt
from support import minimal
from support.job_on_disk import contents
from support.pretraining import Pretraining, undisturbed_pretraining
from support.runs import Server, once


def without(run: Pretraining, flag: str) -> Pretraining:
    at = run.argv.index(flag)
    del run.argv[at : at + 2]
    return run


def trained_before(server: Server, shared: Path, folder: Path, *flags: str) -> Pretraining:
    """A job with one flag, in whose --save stock Megatron trained to iteration 3."""
    base = without(Pretraining(server, shared / "without_plugin", "--exit-interval", "3"), "--data-checkpoint-path")
    once(base.output, base.finish)
    shutil.copytree(base.output / "checkpoints", folder / "checkpoints")
    run = without(Pretraining(server, folder, *flags), "--trained-roles")
    assert run.argv[run.argv.index("--save") + 1] == str(folder / "checkpoints")
    return run


def after(iteration: int, effective: dict[int, str]) -> dict[int, str]:
    return {at: line for at, line in effective.items() if at > iteration}


def test_checkpoints_of_stock_megatron_are_gone_on_from_exactly(
    server: Server, shared_folder: Path, tmp_path: Path
) -> None:
    saves = tmp_path / "run" / "checkpoints"
    run = trained_before(server, shared_folder, tmp_path / "run", "--load", str(saves))
    before = contents(saves / "iter_0000003")
    logs = []
    for crash in ("train_step@policy:2", "commit.end"):  # before its first commit: then it adopts again
        code, log = run.start(crash=crash)
        assert (code, f"crash point {crash.partition(':')[0]}" in log) == (-9, True), log[-3000:]
        logs.append(log)
    log = run.finish()
    root = run.output / "data_checkpoint"
    for attempt in (1, 2):
        found = of_attempt(root, attempt)["policy"]
        assert (found.iteration, found.directory) == (3, str(saves.resolve()))
        assert f"attempt {attempt} adopts iteration 3 of policy from {saves}" in logs[attempt - 1]
    assert "attempt 3 resumes from iteration 6 of attempt 2" in log
    assert run.effective() == after(3, undisturbed_pretraining(server, shared_folder).effective())
    assert [attempt["outcome"] for attempt in run.status()["attempts"]] == ["fresh", "fresh", "resume"]
    assert contents(saves / "iter_0000003") == before


@pytest.fixture(scope="module")
def not_loaded(server: Server, shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pretraining:
    return trained_before(server, shared_folder, tmp_path_factory.mktemp("not_loaded") / "run")


@pytest.mark.parametrize(
    "flags", [(), ("--finetune", "--load", "SAVE"), ("--load", "NOTHING"), ("--trained-roles", "policy")], ids=str
)
def test_a_model_in_the_save_folder_is_never_trained_over(not_loaded: Pretraining, flags: tuple[str, ...]) -> None:
    run, given = not_loaded, list(not_loaded.argv)
    saves = run.output / "checkpoints"
    run.argv = given + [str(saves) if flag == "SAVE" else flag for flag in flags]
    before = contents(saves)
    try:
        code, log = run.start()
    finally:
        run.argv = given
    assert (code, f"policy would train over iteration 3 in its --save {saves}" in log) == (78, True), log[-3000:]
    assert f"To continue from it: --load {saves} without --finetune" in log
    assert contents(saves) == before
    assert not (run.output / "data_checkpoint" / "attempts").exists()
    assert not run.losses[-1].exists()


def test_what_was_adopted_and_is_gone_is_no_reason_to_begin_at_random(
    server: Server, shared_folder: Path, tmp_path: Path
) -> None:
    saves = tmp_path / "run" / "checkpoints"
    run = trained_before(server, shared_folder, tmp_path / "run", "--load", str(saves))
    run.killed("train_step@policy:2")
    saves.rename(tmp_path / "not mounted")
    code, log = run.start()
    assert (code, f"attempt 1 adopted iteration 3 of policy from {saves}" in log) == (78, True), log[-3000:]
    assert not run.losses[-1].exists()


EPISODES_BEFORE = "    if not progress().resume_training:\n        advance(samples=256, episodes=2)\n"


class Loop:
    """examples/minimal.py, each of whose roles loads from where it saves; it ran on stock Megatron before."""

    def __init__(self, server: Server, folder: Path, *, says_position: bool):
        self.server, self.folder = server, folder
        folder.mkdir()
        text = minimal.MINIMAL.read_text()
        text = text.replace("Path(__file__)", f"Path({str(minimal.MINIMAL)!r})")
        text = text.replace("    args.save = f", "    args.load = args.save = f")
        if says_position:
            draw = "    rank, num_ranks ="
            text = text.replace(draw, EPISODES_BEFORE + draw)
        self.script = folder / "loop.py"
        self.script.write_text(text)

    def start(self, *, with_plugin: bool = True, crash: str = "") -> tuple[int, str]:
        log = self.folder / "log.txt"
        argv = minimal.arguments(self.folder / "run")
        if not with_plugin:
            at = argv.index("--data-checkpoint-path")
            del argv[at : at + 2]
        job: dict[str, Any] = {"name": "loop", "script": str(self.script), "log": str(log), "fork_helpers": True}
        ended = self.server.run(**job, argv=argv, env={"MEGATRON_RESUME_CRASH": crash})
        return ended["code"], log.read_text(errors="replace")

    def has_saved(self, **iterations: int) -> None:
        for role, iteration in iterations.items():
            (self.folder / "run" / role / "latest_checkpointed_iteration.txt").write_text(str(iteration))


@pytest.fixture(scope="module")
def undisturbed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Loop:
    """A loop that stock Megatron trained, with saves at 4, 8 and 12."""
    loop = Loop(server, tmp_path_factory.mktemp("loop") / "undisturbed", says_position=False)
    code, log = loop.start(with_plugin=False)
    assert code == 0, log[-3000:]
    return loop


def continued(server: Server, undisturbed: Loop, folder: Path, *, says_position: bool, policy: int = 4) -> Loop:
    loop = Loop(server, folder, says_position=says_position)
    shutil.copytree(undisturbed.folder / "run", loop.folder / "run")
    loop.has_saved(policy=policy, value=4)
    return loop


def test_a_loop_that_does_not_say_where_its_prompts_were_is_refused(
    server: Server, undisturbed: Loop, tmp_path: Path
) -> None:
    loop = continued(server, undisturbed, tmp_path / "loop", says_position=False)
    code, log = loop.start()
    assert code == 78, log[-3000:]
    assert "policy continues from iteration 4 of" in log
    assert "'kl', 'prompts' would begin at the first one again" in log
    assert "megatron_resume.advance(samples=..., episodes=...)" in log
    assert '{"iteration"' not in log


def test_a_loop_that_says_where_its_prompts_were_draws_the_next_ones(
    server: Server, undisturbed: Loop, tmp_path: Path
) -> None:
    loop = continued(server, undisturbed, tmp_path / "loop", says_position=True)
    for model in loop.folder.glob("run/*/iter_00000*"):
        if model.name != "iter_0000004":
            shutil.rmtree(model)
    code, log = loop.start()
    assert code == 0, log[-3000:]
    root = loop.folder / "run" / "data_checkpoint"
    assert {role: found.iteration for role, found in of_attempt(root, 1).items()} == {"policy": 4, "value": 4}
    assert "nothing was saved of 'kl', which begins as the script made it" in log
    prompts = {where: json.loads(said)["prompts"] for where, said in minimal.trace(log).items()}
    whole = minimal.trace((undisturbed.folder / "log.txt").read_text(errors="replace"))
    assert prompts == {where: json.loads(said)["prompts"] for where, said in whole.items() if where[0] > 4}
    assert "committed iteration 8 of attempt 1 (policy, value, " in log
    assert "next episode 4, 512 samples consumed" in log


def test_roles_of_two_iterations_are_refused_with_what_lies_where(
    server: Server, undisturbed: Loop, tmp_path: Path
) -> None:
    loop = continued(server, undisturbed, tmp_path / "loop", says_position=True, policy=8)
    code, log = loop.start()
    assert code == 78, log[-3000:]
    assert f"value is at iteration 4 in {loop.folder}/run/value, and policy at 8" in log
    assert '{"iteration"' not in log
