"""Compare two runs to the bit: their effective traces, their prompts, and the states they ended with."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

Record = dict[str, Any]

CURVES = ("reward", "policy_loss", "value_loss", "kl", "lr")


def read_trace(path: Path) -> list[Record]:
    """The whole lines of a trace, in the order in which they were written; half a line is left out."""
    records = []
    for line in path.read_text().split("\n"):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue  # the last words of a run that was killed
        if isinstance(record, dict):
            records.append(record)
    return records


def effective(records: list[Record]) -> list[Record]:
    """For each iteration the line of the attempt that survived: the largest that reached it."""
    newest: dict[int, Record] = {}
    for record in sorted(records, key=lambda record: record["attempt"]):
        newest[record["iteration"]] = record
    return [newest[iteration] for iteration in sorted(newest)]


def without_attempt(record: Record) -> Record:
    return {key: value for key, value in record.items() if key != "attempt"}


def first_difference(one: list[Record], other: list[Record]) -> str | None:
    """Where two effective traces differ first, `attempt` aside; None when they are equal."""
    if len(one) != len(other):
        return f"{len(one)} iterations against {len(other)}"
    for left, right in zip(one, other, strict=True):
        for key in without_attempt(left).keys() | without_attempt(right).keys():
            if left.get(key) != right.get(key):
                return f"iteration {left['iteration']}: {key} is {left.get(key)} against {right.get(key)}"
    return None


def curve(records: list[Record], name: str) -> list[float]:
    """One of the trace's numbers over its records."""
    return [float.fromhex(record[name]) for record in records]


def prompt_counts(records: list[Record]) -> tuple[int, int, int]:
    """How many prompts an effective trace used, used in more than one episode, and left out.

    Prompts are known by their position in the run, so each belongs to one episode.
    """
    by_episode: dict[int, set[int]] = {}
    for record in records:
        by_episode.setdefault(record["episode"], set()).update(record["prompt_ids"])
    times = Counter(prompt for prompts in by_episode.values() for prompt in prompts)
    skipped = max(times) + 1 - len(times) if times else 0
    return len(times), sum(1 for count in times.values() if count > 1), skipped


def rerun_iterations(records: list[Record]) -> int:
    """Iterations that were done more than once: the work that the kills cost."""
    return len(records) - len({record["iteration"] for record in records})


def read_final_states(path: Path) -> list[Record]:
    """The digests that each rank wrote at the end, in rank order."""
    return [json.loads(path.read_text()), *_other_ranks(path)]


def _other_ranks(path: Path) -> list[Record]:
    states: list[Record] = []
    while (file := path.with_name(f"{path.name}.rank{len(states) + 1}")).exists():
        states.append(json.loads(file.read_text()))
    return states


def state_difference(one: list[Record], other: list[Record], role: str) -> str | None:
    """The first weight or optimizer state of `role` that differs; None when all are equal."""
    if len(one) != len(other):
        return f"{len(one)} ranks against {len(other)}"
    for rank, (left, right) in enumerate(zip(one, other, strict=True)):
        for part in sorted(left[role].keys() | right[role].keys()):
            a, b = left[role].get(part, {}), right[role].get(part, {})
            for name in sorted(a.keys() | b.keys()):
                if a.get(name) != b.get(name):
                    return f"rank {rank}: {part} {name}"
    return None


def frozen_difference(states: list[Record], role: str) -> str | None:
    """The first weight of a frozen role that is not as in its checkpoint; None when all are."""
    for rank, state in enumerate(states):
        for name, digest in state[role]["checkpoint"].items():
            if state[role]["weights"].get(name) != digest:
                return f"rank {rank}: {name} is not as in its checkpoint"
    return None
