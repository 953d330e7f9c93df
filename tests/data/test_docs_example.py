"""The example of docs/data.md does what is said of it, without Megatron: also killed, and on other batches."""

import ast
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from support.pool import Pool, run

ROOT = Path(__file__).resolve().parents[2]
(CODE, *_) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "data.md").read_text(), re.DOTALL)
EPISODE, EPISODES = 32, 6

Drawn = dict[int, list[str]]  # prompts by episode


class Example:
    """The example in a folder of its own, where a Megatron would raise when it is imported."""

    def __init__(self, pool: Pool, folder: Path) -> None:
        self.pool, self.folder = pool, folder
        (folder / "megatron").mkdir()
        (folder / "megatron" / "__init__.py").write_text("raise ImportError('the example needs no Megatron')\n")
        (folder / "prompts.jsonl").write_text("".join(f'{{"prompt": "number {row}"}}\n' for row in range(100)))

    def start(self, code: str = CODE) -> subprocess.CompletedProcess[str]:
        script = self.folder / "train.py"
        script.write_text(code)
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(self.folder / "cache")}
        return run(self.pool, script, environ=environ, cwd=self.folder)

    def run(self, code: str = CODE) -> Drawn:
        done = self.start(code)
        assert done.returncode == 0, done.stderr
        return drawn(done.stdout.splitlines())

    def run_until_killed(self, in_episode: int) -> Drawn:
        """Dies, with its workers, when it has drawn the first batch of that episode."""
        drawing = "print(episode, batch)"
        assert drawing in CODE
        dies = f"print(episode, batch, flush=True); episode == {in_episode} and os.killpg(0, 9)"
        done = self.start(CODE.replace(drawing, dies))
        assert done.returncode == -signal.SIGKILL, done.stderr
        return drawn(done.stdout.splitlines())


def drawn(lines: list[str]) -> Drawn:
    found: Drawn = {}
    for line in lines:
        episode, _, batch = line.partition(" ")
        found.setdefault(int(episode), []).extend(ast.literal_eval(batch))
    return found


@pytest.fixture(scope="module")
def undisturbed(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    return Example(pool, tmp_path_factory.mktemp("undisturbed")).run()


@pytest.fixture
def example(pool: Pool, tmp_path: Path) -> Example:
    return Example(pool, tmp_path)


def test_it_has_twenty_lines() -> None:
    assert len([line for line in CODE.splitlines() if line.strip()]) <= 20


def test_undisturbed_it_draws_every_prompt_once_in_each_epoch(undisturbed: Drawn) -> None:
    order = [prompt for episode in range(EPISODES) for prompt in undisturbed[episode]]
    assert len(order) == EPISODE * EPISODES
    assert len(set(order[:100])) == 100
    assert len(set(order[100:])) == len(order[100:])
    assert order[:92] != order[100:]


def test_killed_in_an_episode_it_goes_on_with_that_episode(example: Example, undisturbed: Drawn) -> None:
    example.run_until_killed(in_episode=3)
    assert example.run() == {episode: undisturbed[episode] for episode in (3, 4, 5)}


def test_after_a_stop_it_goes_on_with_other_batches(example: Example, undisturbed: Drawn) -> None:
    example.run_until_killed(in_episode=2)
    other = CODE.replace("MICRO_BATCH = 32, 6, 8", "MICRO_BATCH = 32, 6, 2")
    assert other != CODE
    assert example.run(other) == {episode: undisturbed[episode] for episode in (2, 3, 4, 5)}


def test_a_file_with_other_prompts_is_refused(example: Example) -> None:
    example.run_until_killed(in_episode=1)
    file = example.folder / "prompts.jsonl"
    file.write_text(file.read_text().replace("number 7", "nombre 7"))
    assert example.start().returncode != 0
