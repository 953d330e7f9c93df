"""The example of docs/data.md does what is said of it, without Megatron: also killed, and on other batches."""

import ast
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
(CODE, *_) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "data.md").read_text(), re.DOTALL)
EPISODE, EPISODES = 32, 6

Drawn = dict[int, list[str]]  # prompts by episode


class Example:
    """The example in a folder of its own, where a Megatron would raise when it is imported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "megatron").mkdir()
        (folder / "megatron" / "__init__.py").write_text("raise ImportError('the example needs no Megatron')\n")
        (folder / "prompts.jsonl").write_text("".join(f'{{"prompt": "number {row}"}}\n' for row in range(100)))

    def start(self, code: str = CODE) -> subprocess.Popen[str]:
        (self.folder / "train.py").write_text(code)
        return subprocess.Popen(
            [sys.executable, "-u", "train.py"],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(self.folder / "cache")},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, code: str = CODE) -> Drawn:
        process = self.start(code)
        out, _ = process.communicate()
        assert process.returncode == 0
        return drawn(out.splitlines())

    def run_until_killed(self, in_episode: int) -> Drawn:
        """Dies, with its workers, when it has drawn the first batch of that episode."""
        drawing = "print(episode, batch)"
        assert drawing in CODE
        process = self.start(CODE.replace(drawing, f"{drawing}; episode == {in_episode} and os.killpg(0, 9)"))
        out, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL
        return drawn(out.splitlines())


def drawn(lines: list[str]) -> Drawn:
    found: Drawn = {}
    for line in lines:
        episode, _, batch = line.partition(" ")
        found.setdefault(int(episode), []).extend(ast.literal_eval(batch))
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    return Example(tmp_path_factory.mktemp("undisturbed")).run()


@pytest.fixture
def example(tmp_path: Path) -> Example:
    return Example(tmp_path)


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
    process = example.start()
    process.communicate()
    assert process.returncode != 0
