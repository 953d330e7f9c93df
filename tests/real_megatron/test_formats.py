"""Megatron's legacy checkpoint format: resumed exactly, or refused before it costs anything."""

from collections.abc import Callable
from pathlib import Path

import pytest

from support.runs import SHAPES, TP2, Run, Server, assert_identical

TORCH = ("--ckpt-format", "torch")
DISTRIBUTED = ("--use-distributed-optimizer",)


@pytest.fixture
def make(server: Server, tmp_path: Path) -> Callable[..., Run]:
    """Runs that also make their frozen models in the format."""
    return lambda name, *flags: Run(server, tmp_path / name, (*TORCH, *flags))


def kill_and_finish(run: Run, **options: object) -> None:
    """Between the saves of two roles, so that policy's tracker names an iteration that was never committed."""
    run.killed("save.end@policy:2", committed=2, **options)  # type: ignore[arg-type]
    assert (run.output / "checkpoints" / "policy" / "latest_checkpointed_iteration.txt").read_text() == "4"
    ended = run.finish(**options)
    assert "resumes from iteration 2 of attempt 1" in ended.line("resumes from")


@pytest.mark.parametrize("shape", [SHAPES["dp2"], pytest.param(TP2, marks=pytest.mark.slow)], ids=["dp2", "tp2"])
def test_the_legacy_format_resumes_exactly(make: Callable[..., Run], shape: tuple[str, ...]) -> None:
    undisturbed, run = make("undisturbed", *shape), make("run", *shape)
    undisturbed.finish()
    kill_and_finish(run)
    assert_identical(run, undisturbed)


def test_legacy_shards_of_the_distributed_optimizer_are_those_of_the_point(make: Callable[..., Run]) -> None:
    """Megatron takes them from where the tracker points, whatever --ckpt-step says."""
    undisturbed, run = make("undisturbed", *DISTRIBUTED), make("run", *DISTRIBUTED)
    tamper = "installed.adam_without_step"
    undisturbed.finish(tamper=tamper)
    kill_and_finish(run, tamper=tamper)
    assert_identical(run, undisturbed)


RESHARDABLE = ("--ckpt-format", "torch_dist", *DISTRIBUTED, "--dist-ckpt-optim-fully-reshardable")
REFUSED = {
    "legacy": (
        DISTRIBUTED,
        "--ckpt-format torch with --use-distributed-optimizer needs Transformer Engine or Apex",
        "Use --ckpt-format torch_dist",
    ),
    "reshardable": (
        RESHARDABLE,
        "--dist-ckpt-optim-fully-reshardable needs Transformer Engine or Apex",
        "Leave it out",
    ),
    "sgd": (
        ("--ckpt-format", "torch_dist", "--optimizer", "sgd"),
        "--optimizer sgd with --ckpt-format torch_dist is not supported",
        "Use --ckpt-format torch",
    ),
}
FAILS = {"sgd": "TypeError: 'NoneType' object is not callable"}


@pytest.mark.parametrize("what", REFUSED)
def test_what_megatron_could_not_load_again_is_refused_before_anything_is_made(
    make: Callable[..., Run], what: str
) -> None:
    flags, found, needed = REFUSED[what]
    run = make("run", *flags)
    ended = run.start()
    assert ended.refused_with == 78
    assert found in ended.log
    assert needed in ended.log
    assert not run.data_checkpoint.exists()
    assert not list(run.output.glob("checkpoints/*/iter_*"))


@pytest.mark.slow
@pytest.mark.parametrize("what", REFUSED)
def test_that_refusal_is_right(make: Callable[..., Run], what: str) -> None:
    run = make("run", *REFUSED[what][0])
    run.finish(tamper="installed.trusts_every_format")
    ended = run.tampered("installed.trusts_every_format")
    assert FAILS.get(what, "KeyError: 'step'") in ended.log
