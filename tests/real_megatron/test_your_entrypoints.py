"""The entrypoints of a Megatron-LM checkout, unedited: `MEGATRON_DIR=/path make test-megatron`."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import PROGRAMS
from support.megatrons import YOURS, Megatron
from support.pool import Pool
from support.runs import Server, megatron_flags

ENTRYPOINTS = ("pretrain_gpt.py", "train_rl.py")
LINE = "import megatron_resume.auto\n"
COLLECTED = re.compile(r"collected before iteration (\d+): (\w+)")
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


@pytest.fixture
def grpo(server: Server, megatron: Megatron, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Start the real train_rl.py with drawn rollouts: three train steps on each collection, saved after each."""
    script = megatron.folder / "train_rl.py"
    if not script.exists() or megatron.numbers < (0, 16):
        pytest.skip(f"{megatron.folder} has no train_rl.py that runs")

    def run(by: str, name: str, *flags: str, **env: str | None) -> tuple[int, str]:
        output, log = tmp_path / name, tmp_path / f"{name}.log"
        output.mkdir(exist_ok=True)
        ours = megatron_flags(output)
        if by == "plain.py":
            at = ours.index("--data-checkpoint-path")
            del ours[at : at + 2]
        else:
            ours += ["--trained-roles", "policy"]
        options = "--train-iters 9 --save-interval 3 --eval-iters 0 --eval-interval 100 --log-interval 1 --bf16"
        options += " --perform-rl-step --grpo-prompts-per-step 4 --grpo-group-size 8 --grpo-iterations 3"
        options += " --no-check-for-nan-in-loss-and-grad"
        words = [str(PROGRAMS / "drawn_rollouts.py"), str(script), *ours, "--save", str(output / "checkpoints")]
        job = {"name": name, "script": str(PROGRAMS / by), "log": str(log), "fork_helpers": True, "timeout": 300}
        ended = server.run(**job, argv=[*words, *options.split(), *flags], env=env)
        return ended["code"], log.read_text(errors="replace")

    code, log = run("plain.py", "base", "--exit-interval", "3")
    assert code == 0, log[-4000:]
    reference = ("--pretrained-checkpoint", str(tmp_path / "base" / "checkpoints"))
    return lambda by, name, *flags, **env: run(by, name, *reference, *flags, **env)


def test_your_grpo_collects_each_prompt_once_and_trains_as_plain_megatron(
    grpo: Callable[..., tuple[int, str]],
) -> None:
    code, undisturbed = grpo("plain.py", "undisturbed")
    assert code == 0, undisturbed[-4000:]
    code, log = grpo("run_command.py", "killed", MEGATRON_RESUME_CRASH="commit.end")
    assert (code, "crash point commit.end" in log) == (-9, True), log[-4000:]
    code, log = grpo("run_command.py", "killed")
    assert code == 0, log[-4000:]
    assert "attempt 2 resumes from iteration 3 of attempt 1" in log
    assert "committed iteration 9 of attempt 2" in log
    assert [iteration for iteration, _ in COLLECTED.findall(undisturbed)] == ["1", "4", "7"]
    assert COLLECTED.findall(log) == COLLECTED.findall(undisturbed)[1:]
    assert [one for one in losses(log) if one[0] != "5"] == [one for one in losses(undisturbed)[3:] if one[0] != "5"]


def test_your_grpo_says_what_a_signal_in_mid_collection_loses(grpo: Callable[..., tuple[int, str]]) -> None:
    code, log = grpo("run_command.py", "stopped", "--exit-signal-handler", SIGTERM_AT="4")
    assert code == 202, log[-4000:]
    assert "policy of iteration 4 is saved in the middle of a collection of rollouts, after 1 of its 3 train" in log
    code, log = grpo("run_command.py", "stopped")
    assert code == 0, log[-4000:]
    assert [iteration for iteration, _ in COLLECTED.findall(log)] == ["5", "8"]
    assert "policy of iteration 6 is saved in the middle of a collection of rollouts, after 2 of its 3 train" in log


def losses(log: str) -> list[tuple[str, str, str]]:
    """Iteration, consumed samples and loss, as Megatron logs them."""
    found = LOSS.findall(log)
    assert found, log[-4000:]
    return found
