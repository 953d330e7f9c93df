"""A load brings all that was saved, or the start is refused: nothing is missing, of another shape, or left unread."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from megatron_resume.checkpoint.commit import sha256_of
from megatron_resume.checkpoint.layout import COMMITTED, PointName
from megatron_resume.checkpoint.torch_metadata import contents_of
from support.job_on_disk import contents
from support.pretraining import Pretraining, undisturbed_pretraining
from support.runs import Run, Server, assert_identical

MOE = ("--num-experts", "4", "--moe-router-topk", "2", "--moe-token-dispatcher-type", "allgather")
MOE += ("--disable-bias-linear", "--moe-router-load-balancing-type", "none")
POINT = PointName(3, 1)


def on_disk(run: Pretraining) -> tuple[object, object]:
    """The models and the newest point."""
    return contents(run.output / "checkpoints"), contents(run.output / "data_checkpoint" / POINT.folder)


def refused(run: Pretraining, *flags: str) -> str:
    """Start the job with `flags`, which must end with 78; why."""
    command, run.argv = run.argv, [*run.argv, *flags]
    before = on_disk(run)
    code, log = run.start()
    run.argv = command
    assert (code, "Traceback" in log) == (78, False), log[-4000:]
    assert on_disk(run) == before
    assert not run.losses.pop().exists(), "nothing was trained"
    (said,) = [line for line in log.splitlines() if "rank 0: start refused" in line]
    return said


def tensors(held: dict[str, dict[str, str]]) -> set[tuple[str, str]]:
    """Names and shapes of the tensors, of all parts."""
    every = [entry for entries in held.values() for entry in entries.items()]
    return {(name, text[text.index("[") :]) for name, text in every if text.split()[0] not in ("object", "groups")}


def forget_tensors(run: Pretraining) -> None:
    """Make the point one of a release that recorded no tensors."""
    point = run.output / "data_checkpoint" / POINT.folder
    receipt, manifest = json.loads((point / "policy.json").read_text()), json.loads((point / COMMITTED).read_text())
    del receipt["tensors"]
    (point / "policy.json").write_text(json.dumps(receipt))
    size = (point / "policy.json").stat().st_size
    manifest["files"]["policy.json"] = {"size": size, "sha256": sha256_of(point / "policy.json")}
    (point / COMMITTED).write_text(json.dumps(manifest))


def test_a_model_that_asks_for_what_was_not_saved_is_refused_and_costs_nothing(
    server: Server, shared_folder: Path, tmp_path: Path
) -> None:
    run = Pretraining(server, tmp_path / "run")
    run.killed("commit.end")
    said = refused(run, "--add-qkv-bias")
    assert "policy cannot be loaded from iteration 3 of attempt 1" in said
    assert "decoder.layers.self_attention.linear_qkv.bias [1, 192] was not saved; optimizer.state.exp_avg." in said
    log = run.finish()
    assert "attempt 3 resumes from iteration 3 of attempt 1" in log
    assert run.effective() == undisturbed_pretraining(server, shared_folder).effective()


@pytest.mark.parametrize(
    "how", ["leaves_weights_unread", pytest.param("leaves_part_of_the_optimizer_unread", marks=pytest.mark.slow)]
)
def test_a_load_that_leaves_something_unread_is_refused(copy_of_interrupted: Run, how: str) -> None:
    trained = copy_of_interrupted.trace()
    ended = copy_of_interrupted.tampered(f"loads.{how}")
    assert ended.refused_with == 65
    said = ended.line("rank 0: Megatron's load_checkpoint did not bring all of policy from iteration 2 of attempt 1")
    assert ("of the optimizer" in said) == ("optimizer" in how)
    assert copy_of_interrupted.trace() == trained


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "changed", "why"),
    [
        (MOE, ("--num-experts", "8"), "was saved as"),
        ((), ("--qk-layernorm",), "was not saved"),
        (("--ckpt-format", "torch"), ("--add-qkv-bias",), "linear_qkv.bias [192] was not saved"),
        (("--bf16", "--use-distributed-optimizer"), ("--add-qkv-bias",), "linear_qkv.bias [1, 192] was not saved"),
    ],
    ids=["experts", "norm of queries", "format torch", "distributed optimizer"],
)
def test_other_options_by_which_a_model_has_other_tensors_are_refused(
    server: Server, tmp_path: Path, flags: tuple[str, ...], changed: tuple[str, ...], why: str
) -> None:
    run = Pretraining(server, tmp_path / "run", *flags)
    run.killed("commit.end")
    assert why in refused(run, *changed)
    run.finish()
    assert list(run.effective()) == list(range(1, 9))


@pytest.mark.slow
def test_a_point_without_a_record_is_compared_with_the_metadata_of_its_model(server: Server, tmp_path: Path) -> None:
    run = Pretraining(server, tmp_path / "run")
    run.killed("commit.end")
    forget_tensors(run)
    assert "linear_qkv.bias [1, 192] was not saved" in refused(run, "--add-qkv-bias")
    run.finish()
    assert list(run.effective()) == list(range(1, 9))


@pytest.mark.slow
def test_experts_on_fewer_ranks_are_refused(server: Server, tmp_path: Path) -> None:
    """Megatron's optimizer of experts is one of its own only if they are divided."""
    run = Pretraining(server, tmp_path / "run", *MOE, "--expert-model-parallel-size", "2")
    run.killed("commit.end")
    assert "optimizer/param_groups was not saved" in refused(run, "--expert-model-parallel-size", "1")
    assert "resumes from iteration 3 of attempt 1" in run.finish()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "how"),
    [
        (("--lr-warmup-iters", "4", "--lr-warmup-init", "0.0"), {}),
        ((), {"FREEZES": "1"}),
        (("--ckpt-format", "torch"), {}),
        (("--bf16",), {}),
        (("--bf16", "--ckpt-format", "torch"), {"FREEZES": "1"}),
        (("--num-layers", "2", "--pipeline-model-parallel-size", "2"), {}),
        (MOE, {}),
    ],
    ids=["first step at learning rate 0", "frozen", "format torch", "bf16", "frozen in bf16", "stages", "experts"],
)
def test_a_load_of_everything_raises_no_alarm(
    server: Server, tmp_path: Path, flags: tuple[str, ...], how: dict[str, str]
) -> None:
    run = Pretraining(server, tmp_path / "run", *flags)
    run.killed("commit.end", **how)
    held = json.loads((run.output / "data_checkpoint" / POINT.folder / "policy.json").read_text())["tensors"]
    if "torch" not in flags:  # which leaves metadata
        assert tensors(held) == tensors(contents_of(run.output / "checkpoints" / "iter_0000003"))
    run.finish(**how)
    assert run.status()["point"] == {"iteration": 8, "attempt": 2}


@pytest.mark.slow
def test_what_the_command_lets_be_missing_begins_anew_with_a_warning(server: Server, tmp_path: Path) -> None:
    run = Pretraining(server, tmp_path / "run")
    run.killed("commit.end")
    run.argv += ["--dist-ckpt-strictness", "log_all", "--add-qkv-bias"]
    _, log = run.start(crash="train_step@policy:2")  # Megatron could not save it: steps of its optimizer differ
    assert "crash point train_step" in log, log[-4000:]
    assert "linear_qkv.bias [1, 192] was not saved; " in log
    assert "--dist-ckpt-strictness log_all lets that begin anew" in log


@pytest.mark.slow
def test_a_load_that_nobody_saw_is_warned_of(copy_of_interrupted: Run) -> None:
    ended = copy_of_interrupted.tampered("loads.loads_by_a_function_of_its_own")
    assert ended.code == 0, ended.log[-4000:]
    assert "WARNING" in ended.line("policy: nobody saw what was loaded from iteration 2 of attempt 1")


def test_what_a_later_save_holds_beyond_the_list_is_found_in_its_metadata(
    new_run: Callable[..., Run], undisturbed: Callable[[str], Run]
) -> None:
    run = new_run("dp2")
    run.killed("commit.end", tamper="saves.lists_less_than_it_saves")
    run.finish()
    assert_identical(run, undisturbed("dp2"))
