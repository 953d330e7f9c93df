"""Every Megatron that is supported: killed and resumed on each, hooked in every order of imports.

That of the environment is what all other tests run on. Here are the wheels of other versions (slow; `make test-all`
makes their folders), and with `MEGATRON_DIR=/path make test-megatron` a checkout of yours.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.job_on_disk import JobOnDisk
from support.megatrons import OTHERS, Megatron
from support.minimal import check_on_another_megatron
from support.pool import Pool
from support.pretraining import (
    MCORE_ASYNC,
    check_exact_resume,
    check_fine_tuning,
    check_reference_of_rl,
    undisturbed_pretraining,
)
from support.probes import check_every_order_of_imports
from support.runs import (
    ASYNC,
    EPISODES,
    ITERATIONS_PER_EPISODE,
    SYNC,
    Run,
    Server,
    assert_identical,
    killed_in_its_second_save,
    undisturbed_runs,
)

ASKS_WHERE = """
import json, sys
import megatron.core, megatron.training
import megatron_resume.auto
from megatron_resume.installed import installed_versions
report = {"version": installed_versions()["megatron-core"], "core": megatron.core.__version__}
report["folders"] = [module.__file__ for module in (megatron.core, megatron.training)]
open(sys.argv[1], "w").write(json.dumps(report))
"""


@pytest.fixture(scope="module", params=OTHERS)
def megatron(request: pytest.FixtureRequest) -> Megatron:
    found: Megatron = request.param
    found.check()
    return found


@pytest.fixture(scope="module")
def pool(megatron: Megatron, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """That of the whole folder, but with this Megatron."""
    started = Pool(tmp_path_factory.mktemp("pool"), os.getpid(), megatron.environment)
    yield started
    started.close()


@pytest.fixture(scope="module")
def server(pool: Pool) -> Server:
    return Server(pool)


@pytest.fixture(scope="module")
def undisturbed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    return undisturbed_runs(server, tmp_path_factory.mktemp("of_this_megatron"))


def test_it_is_this_megatron_that_runs_and_that_is_recorded(server: Server, megatron: Megatron, tmp_path: Path) -> None:
    script, report = tmp_path / "asks_where.py", tmp_path / "report.json"
    script.write_text(ASKS_WHERE)
    job = {"name": "asks", "num_ranks": 1, "script": str(script), "argv": [str(report)], "log": str(tmp_path / "log")}
    assert server.run(**job)["code"] == 0, (tmp_path / "log").read_text()
    found = json.loads(report.read_text())
    assert found["version"] == found["core"].partition("+")[0], "and the commit of a repository around it"
    assert tuple(map(int, found["version"].split(".")[:2])) == megatron.numbers
    assert all(Path(file).is_relative_to(megatron.folder) for file in found["folders"])


def test_hooks_act_alike_in_every_order_of_imports(pool: Pool, tmp_path: Path) -> None:
    saved = JobOnDisk(tmp_path)
    saved.save(saved.attempt(), 4)
    check_every_order_of_imports(pool, saved)


@pytest.mark.parametrize("save", [SYNC, ASYNC], ids=["sync", "async"])
@pytest.mark.parametrize("shape", ["dp2", "tp2"])
def test_killed_and_resumed_a_run_is_identical_to_the_undisturbed_one(
    new_run: Callable[..., Run], undisturbed: Callable[[str], Run], shape: str, save: tuple[str, ...]
) -> None:
    run = killed_in_its_second_save(lambda name: new_run(shape, *save, name=name))
    run.killed("train_step@policy:2")
    ended = run.finish()
    assert f"resumes from iteration {ITERATIONS_PER_EPISODE} of attempt 1" in ended.line("attempt 3 resumes from")
    assert_identical(run, undisturbed(shape))


def test_where_megatron_switches_asynchronous_saves_off_they_are_committed_all_the_same(
    new_run: Callable[..., Run], undisturbed: Callable[[str], Run]
) -> None:
    """From 0.16 on, without --use-persistent-ckpt-worker; before, they are asynchronous."""
    run = new_run("dp2", "--async-save")
    run.killed("train_step@policy:5", committed=ITERATIONS_PER_EPISODE)
    ended = run.finish()
    assert "resumes from iteration" in ended.log
    assert_identical(run, undisturbed("dp2"))


@pytest.mark.parametrize("save", ["sync", "async"])
def test_an_unedited_pretraining_script_resumes_exactly(
    server: Server, megatron: Megatron, tmp_path: Path, save: str
) -> None:
    asynchronous = MCORE_ASYNC if megatron.numbers >= (0, 17) else ASYNC
    flags = asynchronous if save == "async" else SYNC
    undisturbed = undisturbed_pretraining(server, tmp_path, *flags)
    check_exact_resume(server, tmp_path, *flags, undisturbed=undisturbed)


def test_the_minimal_loop_resumes_exactly(server: Server, megatron: Megatron, tmp_path: Path) -> None:
    if megatron.numbers < (0, 18):
        pytest.skip("it says so: the script parses its arguments itself")
    check_on_another_megatron(server, tmp_path)


def test_fine_tuning_begins_from_its_base_and_goes_on_from_its_own_point(server: Server, tmp_path: Path) -> None:
    check_fine_tuning(server, tmp_path, tmp_path)


def test_rl_gets_its_reference_from_the_base_also_on_a_resumed_start(server: Server, tmp_path: Path) -> None:
    check_reference_of_rl(server, tmp_path, tmp_path)


def test_where_the_optimizer_does_not_look_for_learning_rates_another_one_goes_on(
    new_run: Callable[..., Run], megatron: Megatron
) -> None:
    """From 0.19 on it does, and the start is refused: test_configuration_difference.py."""
    if megatron.numbers >= (0, 19):
        pytest.skip("it is refused here, which another test sees")
    run = new_run()
    run.killed("save.begin@value:2", committed=ITERATIONS_PER_EPISODE)
    run.finish("--lr", "5e-3", "--override-opt_param-scheduler")
    assert len(run.trace()) == EPISODES * ITERATIONS_PER_EPISODE
