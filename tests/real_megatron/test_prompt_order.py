"""The prompts of a run are drawn in one order, whatever its ranks are and however its dataset grows."""

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.drawn import PER_EPISODE, drawn, episodes
from support.job_on_disk import contents
from support.runs import ALONE, EPISODES, ITERATIONS_PER_EPISODE, Run


def rows_file(path: Path, rows: int) -> Path:
    """A prompt file, whose first rows are the same whatever their number."""
    path.write_text("".join(json.dumps({"prompt": f"{row} and {row} is "}) + "\n" for row in range(rows)))
    return path


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_on_another_number_of_ranks_the_same_prompts_come_in_the_same_order(
    new_run: Callable[..., Run], undisturbed: Callable[[str], Run], before: int, after: int
) -> None:
    run = new_run()
    run.num_ranks = before
    run.killed("save.begin@value:2", committed=ITERATIONS_PER_EPISODE)
    run.num_ranks = after
    run.finish()
    assert drawn(run) == drawn(undisturbed("dp2"))
    assert episodes(run) == [set(range(e * PER_EPISODE, (e + 1) * PER_EPISODE)) for e in range(EPISODES)]
    assert len(set(drawn(run).values())) == EPISODES * PER_EPISODE, "the file is longer than the run, so none repeats"


def test_over_three_attempts_on_two_ranks_one_and_two_again_every_prompt_comes_once(
    new_run: Callable[..., Run], undisturbed: Callable[[str], Run]
) -> None:
    run = new_run()
    run.killed("save.begin@value:2", committed=ITERATIONS_PER_EPISODE)
    run.num_ranks = 1
    run.killed("commit.end")  # its first save is committed, however long it took
    run.num_ranks = 2
    ended = run.finish()
    assert "attempt 3 resumes from iteration 4 of attempt 2" in ended.log
    assert drawn(run) == drawn(undisturbed("dp2"))
    assert episodes(run) == [set(range(e * PER_EPISODE, (e + 1) * PER_EPISODE)) for e in range(EPISODES)]
    assert run.status()["roles"]["policy"]["consumed_samples"] == EPISODES * PER_EPISODE


@pytest.fixture
def stopped(new_run: Callable[..., Run], tmp_path: Path) -> Callable[..., Run]:
    """A run over 24 rows that was killed after its first episode was saved."""

    def make(*flags: str) -> Run:
        path = rows_file(tmp_path / "prompts.jsonl", 24)
        run = new_run(ALONE, "--prompt-file", str(path), "--prompt-index-dir", str(tmp_path / "index"), *flags)
        run.killed("save.begin@value:2", committed=ITERATIONS_PER_EPISODE)
        return run

    return make


def refused(run: Run, *flags: str) -> str:
    """The log of a start that is refused, and changes nothing."""
    folders = [run.data_checkpoint, run.output / "checkpoints"]
    before = [contents(folder) for folder in folders]
    ended = run.start(*flags)
    assert ended.refused_with == 78, ended.log[-4000:]
    assert [contents(folder) for folder in folders] == before
    return ended.log


def test_a_dataset_that_grew_by_a_row_is_refused_and_nothing_is_repeated_or_lost_when_it_is_appended(
    stopped: Callable[..., Run], tmp_path: Path
) -> None:
    run = stopped()
    first = dict(list(drawn(run).items())[:PER_EPISODE])
    rows_file(tmp_path / "prompts.jsonl", 25)
    log = refused(run)
    assert re.search(r"prompts.jsonl.*24 rows *25 rows", log), log[-3000:]
    assert "--on-dataset-change append" in log
    ended = run.finish("--on-dataset-change", "append")
    assert "0 repeated, 0 skipped, 1 new" in ended.log
    rows = [row for _, row in sorted(drawn(run).items())]
    assert {p: drawn(run)[p] for p in first} == first
    assert sorted(rows[:24]) == list(range(24)), "the epoch that was under way has the rows that it had"
    assert len(set(rows[24:])) == EPISODES * PER_EPISODE - 24, "the next one has each row once"
    assert Counter(rows).most_common(1)[0][1] == 2


def test_other_rows_in_place_of_the_old_ones_are_refused_also_where_rows_may_be_appended(
    stopped: Callable[..., Run], tmp_path: Path
) -> None:
    run = stopped()
    path = rows_file(tmp_path / "prompts.jsonl", 25)
    path.write_text(path.read_text().replace("3 and 3", "4 and 3"))
    refused(run, "--on-dataset-change", "append")


@pytest.mark.parametrize("flags", [("--samples-per-episode", "32"), ("--seed", "7"), ("--no-shuffle-prompts",)])
def test_an_argument_that_would_change_the_order_is_refused(copy_of_interrupted: Run, flags: tuple[str, ...]) -> None:
    refused(copy_of_interrupted, *flags)


def test_another_order_behind_the_same_arguments_is_seen_by_its_proof(copy_of_interrupted: Run) -> None:
    """As where a release of this package would draw otherwise."""
    run = copy_of_interrupted
    ended = run.tampered("data_order.draws_in_another_order")
    assert ended.refused_with == 78, ended.log[-4000:]
    assert "the order of 'prompts' is not the one that was saved" in ended.log


def test_in_file_order_prompts_come_as_chatlearn_draws_them(
    stopped: Callable[..., Run],
) -> None:
    run = stopped("--no-shuffle-prompts")
    run.finish()
    assert drawn(run) == {position: position % 24 for position in range(EPISODES * PER_EPISODE)}


def test_a_loop_that_draws_prompts_and_never_counts_them_is_stopped_at_its_first_save(
    new_run: Callable[..., Run],
) -> None:
    run = new_run(ALONE)
    ended = run.tampered("data_order.draws_and_never_counts")
    assert ended.refused_with == 78, ended.log[-4000:]
    assert "until iteration 2 nobody counted a sample of 'prompts'" in ended.log
    assert "megatron_resume.advance(samples=...)" in ended.log


def loader_drew(run: Run) -> dict[int, list[int]]:
    """What each rank's StatefulDataLoader gave: the killed start's first episode, and all of the last start."""
    found: dict[int, list[int]] = {}
    killed, ended = run.starts
    for log, episodes_of in ((killed.log, range(1)), (ended.log, range(1, EPISODES))):
        for rank, episode, rows in re.findall(r"rank (\d) drew in episode (\d): ([\d ]+)\.", log):
            if int(episode) in episodes_of:
                found.setdefault(int(rank), []).extend(map(int, rows.split()))
    return found


def test_a_stateful_data_loader_goes_on_at_each_rank(new_run: Callable[..., Run]) -> None:
    run = new_run()
    draws = "data_order.draws_from_a_loader"
    run.killed("save.begin@value:2", tamper=draws, committed=ITERATIONS_PER_EPISODE)
    assert run.tampered(draws).code == 0
    share = EPISODES * PER_EPISODE // 2
    expected: dict[int, Any] = {rank: list(range(rank * 100, rank * 100 + share)) for rank in range(2)}
    assert loader_drew(run) == expected
    run.num_ranks = 1
    ended = run.tampered(draws)
    assert ended.refused_with == 78
    assert "the position of each of 2 data-parallel ranks, and this run has 1" in ended.log
