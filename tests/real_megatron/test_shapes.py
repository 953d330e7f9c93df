"""A job that comes back with other parallel sizes: it goes on with exact prompts and counters, or is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support.drawn import PER_EPISODE, drawn, episodes
from support.job_on_disk import contents
from support.runs import EPISODES, ITERATIONS_PER_EPISODE, TP2, Run, Server


class Shape(NamedTuple):
    """How many ranks, and what they divide among them."""

    num_ranks: int
    flags: tuple[str, ...] = ()


SHAPES = {
    "one": Shape(1),
    "dp2": Shape(2),
    "tp2": Shape(2, TP2),
    "pp2": Shape(2, ("--pipeline-model-parallel-size", "2")),
}
LAYERS = ("--num-layers", "2")  # to be divided among two stages
DISTRIBUTED = ("--use-distributed-optimizer",)
KINDS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "distributed": DISTRIBUTED,
    "reshardable": (*DISTRIBUTED, "--dist-ckpt-optim-fully-reshardable"),
    "legacy": ("--ckpt-format", "torch"),
}
# Without Transformer Engine and Apex Megatron cannot load this, in any shape; so their Adam is imitated.
OPTIONS: dict[str, dict[str, Any]] = {"reshardable": {"tamper": "installed.adam_without_step"}}
EVERY = [(before, after, kind) for kind in KINDS for before in SHAPES for after in SHAPES if before != after]
DIVIDED = {c for c in EVERY if {"tp2", "pp2"} & set(c[:2])}  # the model itself, before or after
# Of the distributed optimizer Megatron can load what was saved with another division of the model only on request.
REFUSED = {
    **{c: "by which the distributed optimizer's state is divided" for c in DIVIDED if c[2] == "distributed"},
    **{c: "only what was saved with --ckpt-format torch_dist can change it" for c in DIVIDED if c[2] == "legacy"},
}
SPREAD = {
    *(("dp2", "pp2", "plain"), ("pp2", "tp2", "plain"), ("dp2", "one", "distributed")),
    *(("tp2", "dp2", "distributed"), ("pp2", "one", "reshardable")),
}
CASES = [
    pytest.param(case, id="{} to {}, {}".format(*case), marks=[] if case in SPREAD else pytest.mark.slow)
    for case in EVERY
]
Make = Callable[[str, str], Run]


@pytest.fixture(scope="module")
def stopped(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """(shape, kind) -> a run that was killed between the saves of its second episode; copy it."""
    made: dict[tuple[str, str], Run] = {}

    def of(shape: str, kind: str) -> Run:
        if (shape, kind) not in made:
            run = Run(server, tmp_path_factory.mktemp("stopped") / "run", (*LAYERS, *KINDS[kind]))
            run.num_ranks = SHAPES[shape].num_ranks
            run.killed("save.begin@value:2", *SHAPES[shape].flags, committed=2, **OPTIONS.get(kind, {}))
            made[shape, kind] = run
        return made[shape, kind]

    return of


@pytest.fixture
def copied(stopped: Make, tmp_path: Path) -> Make:
    def of(shape: str, kind: str) -> Run:
        run = stopped(shape, kind)
        shutil.copytree(run.output, tmp_path / "copy")
        return Run(run.server, tmp_path / "copy", run.flags)

    return of


def check_prompts_and_counters(run: Run, reference: Run) -> None:
    assert drawn(run) == drawn(reference)
    assert episodes(run) == [set(range(e * PER_EPISODE, (e + 1) * PER_EPISODE)) for e in range(EPISODES)]
    assert [line["iteration"] for line in run.trace()] == list(range(1, EPISODES * ITERATIONS_PER_EPISODE + 1))
    for role in run.status()["roles"].values():
        assert (role["episode"], role["consumed_samples"]) == (EPISODES, EPISODES * PER_EPISODE)


@pytest.mark.parametrize("case", CASES)
def test_in_another_shape_prompts_and_counters_go_on_or_the_start_is_refused(
    copied: Make, undisturbed: Callable[[str], Run], case: tuple[str, str, str]
) -> None:
    before, after, kind = case
    run = copied(before, kind)
    run.num_ranks = SHAPES[after].num_ranks
    if case not in REFUSED:
        run.finish(*SHAPES[after].flags, **OPTIONS.get(kind, {}))
        check_prompts_and_counters(run, undisturbed("dp2"))
        return
    on_disk = contents(run.data_checkpoint), contents(run.output / "checkpoints")
    ended = run.start(*SHAPES[after].flags)
    assert ended.refused_with == 78, ended.log[-6000:]
    assert REFUSED[case] in ended.log
    assert "continue with --" in ended.log
    assert (contents(run.data_checkpoint), contents(run.output / "checkpoints")) == on_disk


@pytest.mark.slow
@pytest.mark.parametrize("case", sorted(REFUSED), ids=lambda case: "{} to {}, {}".format(*case))
def test_megatron_fails_with_what_is_refused(copied: Make, case: tuple[str, str, str]) -> None:
    before, after, kind = case
    run = copied(before, kind)
    run.num_ranks = SHAPES[after].num_ranks
    ended = run.tampered("arguments.compares_no_configuration", *SHAPES[after].flags)
    assert ended.code not in (0, 78)
    assert "start refused" not in ended.log


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ("pp2", "plain"),
        pytest.param("dp2", "distributed", marks=pytest.mark.slow),
        pytest.param("tp2", "distributed", marks=pytest.mark.slow),
        pytest.param("pp2", "distributed", marks=pytest.mark.slow),
    ],
)
def test_in_its_own_shape_it_goes_on_to_the_bit(
    copied: Make, server: Server, tmp_path: Path, shape: str, kind: str
) -> None:
    run = copied(shape, kind)
    reference = Run(server, tmp_path / "undisturbed", run.flags)
    for one in (run, reference):
        one.finish(*SHAPES[shape].flags)
    assert run.trace() == reference.trace()
    assert run.final_state() == reference.final_state()
