"""The entrypoints of a Megatron-LM checkout, unedited: `MEGATRON_DIR=/path make test-megatron`."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import PROGRAMS
from support.megatrons import YOURS, Megatron
from support.pool import Pool
from support.runs import Server, megatron_flags

ENTRYPOINTS = ("pretrain_gpt.py", "train_rl.py")
LINE = "import megatron_resume.auto\n"
LOSS = re.compile(r"iteration +(\d+)/.*consumed samples: +(\d+) .*lm loss: (\S+)")


if not YOURS:
    pytest.skip("MEGATRON_DIR names no checkout of Megatron-LM", allow_module_level=True)


@pytest.fixture(scope="module", params=[pytest.param(YOURS, id="MEGATRON_DIR")])
def megatron(request: pytest.FixtureRequest) -> Megatron:
    found = Megatron("MEGATRON_DIR", Path(request.param).resolve())
    found.check()
    return found


@pytest.fixture(scope="module")
def server(megatron: Megatron, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pool = Pool(tmp_path_factory.mktemp("server"), os.getpid(), megatron.environment)
    yield Server(pool)
    pool.close()


@pytest.fixture(params=ENTRYPOINTS)
def entrypoint(request: pytest.FixtureRequest, megatron: Megatron) -> Path:
    path: Path = megatron.folder / request.param
    if not path.exists():
        pytest.skip(f"there is no {request.param} in {megatron.folder}")
    return path


def start(server: Server, script: Path, log: Path, *argv: str, crash: str | None = None) -> tuple[int, str]:
    """Run `script`; under `megatron-resume run`, unless it imports us itself."""
    imports_us = LINE in script.read_text()
    job = {"name": "yours", "script": str(script if imports_us else PROGRAMS / "run_command.py"), "log": str(log)}
    words = [*argv] if imports_us else [str(script), *argv]
    ended = server.run(**job, argv=words, env={"MEGATRON_RESUME_CRASH": crash}, fork_helpers=True, timeout=300)
    return ended["code"], log.read_text(errors="replace")


def with_our_line(entrypoint: Path, folder: Path) -> Path:
    """A copy that imports us, and finds what lies beside the original."""
    copy = folder / entrypoint.name
    copy.write_text(f"{LINE}import sys\nsys.path.insert(1, {str(entrypoint.parent)!r})\n{entrypoint.read_text()}")
    return copy


@pytest.mark.parametrize("way", ["run", "import"])
def test_an_entrypoint_of_yours_has_our_flags(server: Server, entrypoint: Path, tmp_path: Path, way: str) -> None:
    script = entrypoint if way == "run" else with_our_line(entrypoint, tmp_path)
    code, log = start(server, script, tmp_path / "log", "--help")
    assert code == 0, log[-4000:]
    assert "--data-checkpoint-path" in log.partition("\nresume:\n")[2]


@pytest.mark.parametrize("way", ["run", "import"])
def test_your_pretraining_resumes_at_megatrons_consumed_samples(
    server: Server, megatron: Megatron, tmp_path: Path, way: str
) -> None:
    script = megatron.folder / "pretrain_gpt.py"
    if not script.exists():
        pytest.skip(f"there is no pretrain_gpt.py in {megatron.folder}")
    script = script if way == "run" else with_our_line(script, tmp_path)
    options = "--train-iters 8 --save-interval 3 --eval-iters 0 --eval-interval 100 --log-interval 1"
    options += " --mock-data --split 1,0,0 --no-check-for-nan-in-loss-and-grad --trained-roles policy"

    def argv(name: str) -> list[str]:
        output = tmp_path / name
        output.mkdir(exist_ok=True)
        cache = ["--data-cache-path", str(tmp_path / "cache")]
        return [*megatron_flags(output), "--save", str(output / "checkpoints"), *options.split(), *cache]

    code, log = start(server, script, tmp_path / "undisturbed.log", *argv("undisturbed"))
    assert code == 0, log[-4000:]
    undisturbed = losses(log)
    code, log = start(server, script, tmp_path / "killed.log", *argv("killed"), crash="commit.end")
    assert (code, "crash point commit.end" in log) == (-9, True), log[-4000:]
    code, log = start(server, script, tmp_path / "resumed.log", *argv("killed"))
    assert code == 0, log[-4000:]
    assert "attempt 2 resumes from iteration 3 of attempt 1" in log
    # The second line after a start holds the mean of two losses: Megatron's first report resets no sum.
    resumed = losses(log)
    assert len(resumed) == 5
    assert [one for one in resumed if one[0] != "5"] == [one for one in undisturbed[3:] if one[0] != "5"]


def losses(log: str) -> list[tuple[str, str, str]]:
    """Iteration, consumed samples and loss, as Megatron logs them."""
    found = LOSS.findall(log)
    assert found, log[-4000:]
    return found
