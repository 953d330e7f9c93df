"""A start with another configuration says what changed and what that does, or is refused with what is needed."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.job_on_disk import contents
from support.pretraining import Pretraining
from support.runs import ALONE, TP2, Run, Server

ANOTHER = "saved with another configuration"
REFUSED = {
    "layers": (("--num-layers", "4"), "num_layers was 1 and is 4; continue with --num-layers 1"),
    "heads": (("--num-attention-heads", "8"), "num_attention_heads was 4 and is 8; continue with"),
    "learning rate": (("--lr", "5e-3"), "policy cannot continue"),
    "value's alone": (("--value-lr", "1e-3"), "value cannot continue from iteration 2 of attempt 1 like this:"),
    "longer": (("--num-episodes", "5"), "train_iters was 6 and is 10; add --use-checkpoint-opt_param-scheduler"),
    "decay": (("--lr-decay-style", "linear"), "lr_decay_style was cosine and is linear; add --use-checkpoint-opt"),
    "weight decay": (("--weight-decay", "0.1"), "weight_decay was 0.01 and is 0.1; add"),
    "precision": (("--bf16",), "bf16 was False and is True; continue with bf16 = False"),
    "optimizer": (("--use-distributed-optimizer",), "continue with use_distributed_optimizer = False"),
    "format": (("--ckpt-format", "torch"), "continue with --ckpt-format torch_dist"),
    "norm": (("--normalization", "LayerNorm"), "continue with --normalization RMSNorm"),
    "positions": (("--position-embedding-type", "learned_absolute"), "continue with --position-embedding-type rope"),
}
EXACT = {
    "optimizer's own": ("--adam-beta2", "0.95", "--adam-eps", "1e-6"),
    "kept schedule": ("--lr-decay-style", "linear", "--use-checkpoint-opt_param-scheduler"),
    "harmless": ("--log-interval", "7", "--no-check-for-nan-in-loss-and-grad", "--distributed-timeout-minutes", "9"),
}
INEXACT = {
    "clipping": ("--clip-grad", "0.1"),
    "dropout": ("--hidden-dropout", "0.0"),
    "kept schedule but for weight decay": ("--weight-decay", "0.5", "--use-checkpoint-opt_param-scheduler"),
    "batch": ("--micro-batch-size", "2"),
}


def table(log: str, role: str) -> list[list[str]]:
    """The rows that were shown for `role`; there is one table."""
    (found,) = re.findall(rf"{role} continues from .*, {ANOTHER}:\n((?:  .*\n)+)", log)
    return [re.split(r" {2,}", row.strip()) for row in found.splitlines()]


def on_disk(run: Run) -> Any:
    return run.trace(), contents(run.data_checkpoint), contents(run.output / "checkpoints")


@pytest.mark.parametrize("what", REFUSED)
def test_what_megatron_cannot_load_is_refused_before_anything_changes(copy_of_interrupted: Run, what: str) -> None:
    run, (flags, message) = copy_of_interrupted, REFUSED[what]
    before = on_disk(run)
    ended = run.start(*flags)
    assert ended.refused_with == 78
    assert message in ended.log
    assert "Traceback" not in ended.log
    assert on_disk(run) == before


@pytest.mark.slow
@pytest.mark.parametrize("what", REFUSED)
def test_megatron_fails_with_what_is_refused(copy_of_interrupted: Run, what: str) -> None:
    ended = copy_of_interrupted.tampered("arguments.compares_no_configuration", *REFUSED[what][0])
    assert ended.code not in (0, 78)
    assert "in load_checkpoint" in ended.log, "of the traceback"
    assert "start refused" not in ended.log


@pytest.mark.parametrize("what", EXACT)
def test_what_is_shown_as_exact_is_exact(
    copy_of_interrupted: Run, undisturbed: Callable[[str], Run], what: str
) -> None:
    run = copy_of_interrupted
    ended = run.finish(*EXACT[what])
    assert {row[3].split(",")[0] for row in table(ended.log, "policy")[1:]} == {"yes"}
    assert "WARNING" not in ended.line(f"policy.*{ANOTHER}")
    assert run.trace() == undisturbed(ALONE).trace()


def check_inexact(run: Run, undisturbed: Run, *flags: str) -> None:
    ended = run.finish(*flags)
    assert "no" in {row[3] for row in table(ended.log, "policy")[1:]}
    assert "WARNING" in ended.line(f"policy.*{ANOTHER}")
    assert run.trace() != undisturbed.trace()


@pytest.mark.parametrize("what", INEXACT)
def test_what_is_shown_as_inexact_is_inexact(
    copy_of_interrupted: Run, undisturbed: Callable[[str], Run], what: str
) -> None:
    check_inexact(copy_of_interrupted, undisturbed(ALONE), *INEXACT[what])


def test_a_division_of_tensors_is_shown_as_inexact_and_is(
    copy_of_interrupted_pair: Run, undisturbed: Callable[[str], Run]
) -> None:
    check_inexact(copy_of_interrupted_pair, undisturbed("dp2"), *TP2)


def test_pipeline_stages_are_shown_as_inexact_and_are(server: Server, tmp_path: Path) -> None:
    undisturbed, run = (Run(server, tmp_path / name, ("--num-layers", "2")) for name in ("undisturbed", "run"))
    undisturbed.finish()
    run.killed("save.begin@value:2", committed=2)
    check_inexact(run, undisturbed, "--pipeline-model-parallel-size", "2")


def test_each_role_has_one_table_of_what_changed(copy_of_interrupted_pair: Run) -> None:
    run = copy_of_interrupted_pair
    run.num_ranks = 1
    ended = run.finish("--kl-target", "3", "--adam-beta2", "0.95", "--log-interval", "7")
    assert table(ended.log, "policy") == [
        ["argument", "then", "now", "goes on exactly"],
        ["world_size", "2", "1", "no"],
        ["kl_target", "6.0", "3.0", "unknown"],
        ["adam_beta2", "0.999", "0.95", "yes, the saved one stays"],
        ["log_interval", "100", "7", "yes"],
    ]
    assert table(ended.log, "value") == table(ended.log, "policy")
    assert "random numbers continue as Megatron restores them" in ended.log, "as the table says"


def test_the_same_command_shows_nothing(copy_of_interrupted: Run) -> None:
    run = copy_of_interrupted
    run.killed("train_step@policy:2")
    run.finish()
    assert not any(ANOTHER in ended.log for ended in run.starts)


def test_a_checkout_of_megatron_has_a_version_too(copy_of_interrupted: Run) -> None:
    ended = copy_of_interrupted.tampered("installed.megatron_is_a_checkout")
    assert (ended.code, ANOTHER in ended.log) == (0, False), ended.log[-4000:]


@pytest.fixture(scope="module")
def killed_pretraining(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Pretraining:
    run = Pretraining(server, tmp_path_factory.mktemp("pretraining") / "run")
    code, log = run.start(crash="commit.end")
    assert (code, "crash point commit.end" in log) == (-9, True), log[-4000:]
    return run


def test_one_role_is_refused_before_its_attempt_begins(killed_pretraining: Pretraining) -> None:
    run = killed_pretraining
    before = contents(run.output / "data_checkpoint"), contents(run.output / "checkpoints")
    flags, run.argv = run.argv, [*run.argv, "--num-layers", "4"]
    code, log = run.start()
    assert code == 78, log[-4000:]
    assert "num_layers was 1 and is 4; continue with --num-layers 1" in log
    assert "Traceback" not in log
    assert (contents(run.output / "data_checkpoint"), contents(run.output / "checkpoints")) == before
    run.argv = flags


def test_one_role_shows_what_changed_and_nothing_on_the_same_command(killed_pretraining: Pretraining) -> None:
    run = killed_pretraining
    code, log = run.start(crash="train_step:2")
    assert (code, ANOTHER in log) == (-9, False), log[-4000:]
    run.argv = [*run.argv, "--clip-grad", "0.5"]
    code, log = run.start()
    assert code == 0, log[-4000:]
    assert table(log, "policy")[1:] == [["clip_grad", "1.0", "0.5", "no"]]


def test_no_secret_is_stored(new_run: Callable[..., Run]) -> None:
    run = new_run(ALONE)
    run.finish("--wandb-entity", "hunter2", "--one-logger-project", "hunter2", "--app-tag-run-name=hunter2", episodes=3)
    receipts: list[Path] = list(run.data_checkpoint.glob("iter_*/policy.json"))
    assert receipts
    assert '"clip_grad": 1.0' in receipts[0].read_text()
    files = [path for path in run.data_checkpoint.rglob("*") if path.is_file()]
    assert not any("hunter2" in file.read_text(errors="replace") for file in files)
    ended = run.finish("--app-tag-run-name=hunter3")
    assert ["app_tag_run_name", "changed (value not recorded)", "unknown"] in table(ended.log, "policy")
    assert "hunter3" not in str(table(ended.log, "policy"))
