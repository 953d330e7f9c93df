"""What is saved is what trains, when weights are gathered in the forward pass that comes after the save."""

import re
from pathlib import Path

import pytest

from support import PROGRAMS, minimal
from support.pretraining import OnPlainMegatron, check_exact_resume
from support.runs import ASYNC, SYNC, Run, Server, assert_identical

OVERLAP = ("--use-distributed-optimizer", "--overlap-grad-reduce", "--overlap-param-gather")


def held(server: Server, folder: Path, *options: str) -> list[tuple[str, ...]]:
    """Of each rank the digests of its weights before and after they were brought up to date, and at the end."""
    log, script = folder / "log", PROGRAMS / "overlapping_gather.py"
    ended = server.run(name="gather", script=str(script), log=str(log), argv=[*options])
    assert ended["code"] == 0, log.read_text()[-3000:]
    return [tuple(line.split()) for line in re.findall(r"rank \d: (.*)", log.read_text())]


@pytest.mark.parametrize("overlap", [[], ["optimizer-step"]], ids=["forward", "optimizer step"])
def test_each_chunk_is_gathered_whatever_gathers_it_next(server: Server, tmp_path: Path, overlap: list[str]) -> None:
    one, other = held(server, tmp_path, *overlap)
    assert one[0] != other[0], "nothing was to be gathered"
    assert one[1:] == other[1:]
    assert [end for *_, end in held(server, tmp_path, *overlap, "without")] == [one[2]] * 2, "training goes on as ever"


def test_a_loop_of_ones_own_saves_the_weights_that_it_trains(server: Server, tmp_path: Path) -> None:
    killed = minimal.from_server(server, tmp_path / "run", minimal.IN_MID_EPISODE, *OVERLAP)
    resumed = minimal.from_server(server, tmp_path / "run", "", *OVERLAP)
    assert (killed[0], resumed[0]) == (-9, 0), resumed[1][-3000:]
    before, after = minimal.trace(killed[1]), minimal.trace(resumed[1])
    again = before.keys() & after.keys()
    assert {(5, 0), (5, 1), (6, 0), (6, 1)} <= again, "nothing was trained twice"
    assert {step: before[step] for step in again} == {step: after[step] for step in again}


@pytest.mark.slow
def test_such_a_loop_resumes_as_one_that_nobody_disturbs(server: Server, tmp_path: Path) -> None:
    undisturbed = minimal.from_server(server, tmp_path / "undisturbed", "", *OVERLAP)
    killed = minimal.from_server(server, tmp_path / "killed", minimal.IN_MID_EPISODE, *OVERLAP)
    minimal.check_exact(undisturbed, killed, minimal.from_server(server, tmp_path / "killed", "", *OVERLAP))


@pytest.mark.slow
@pytest.mark.parametrize("save", [SYNC, ASYNC], ids=["sync", "async"])
def test_the_rlhf_example_saves_the_weights_that_it_trains(
    server: Server, tmp_path: Path, save: tuple[str, ...]
) -> None:
    undisturbed, run = (Run(server, tmp_path / name, (*OVERLAP, *save)) for name in ("undisturbed", "run"))
    undisturbed.finish()
    run.killed("save.begin@value:2")
    run.finish()
    assert_identical(run, undisturbed)


@pytest.mark.slow
def test_megatrons_own_loop_trains_and_resumes_as_without_us(server: Server, tmp_path: Path) -> None:
    undisturbed = OnPlainMegatron(server, tmp_path / "plain", *OVERLAP)
    undisturbed.finish()
    check_exact_resume(server, tmp_path, *OVERLAP, undisturbed=undisturbed)
