"""Which prompts a run of the example drew."""

from .runs import Run

PER_EPISODE = 16


def drawn(run: Run) -> dict[int, int]:
    """Which row of the prompt file stood at each position of the run."""
    found: dict[int, int] = {}
    for line in run.trace():
        for position, row in zip(line["prompt_ids"], line["prompt_rows"], strict=True):
            assert found.setdefault(position, row) == row
    return found


def episodes(run: Run) -> list[set[int]]:
    """The positions that each episode trained on."""
    found: dict[int, set[int]] = {}
    for line in run.trace():
        found.setdefault(line["episode"], set()).update(line["prompt_ids"])
    return [found[episode] for episode in sorted(found)]
