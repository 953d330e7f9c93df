"""How far from chance our order and grain's index_shuffle are, by the scores of our tests. `randomness.py LARGEST`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from grain._src.python.experimental.index_shuffle.python.index_shuffle_module import index_shuffle

from megatron_resume.data import EpisodeSampler

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from support.quality import Rows, limit, scores_of_order, worst

SAMPLE, LENGTHS, SEEDS = 1 << 16, (10**6, 10**9), (1, 2, 3)
NOT_ONE_TO_ONE = (1 << 16) + 1  # samples


def ours(length: int, seed: int) -> Callable[[Rows], Rows]:
    sampler = EpisodeSampler(length, samples_per_episode=1024, seed=seed)
    return lambda run: sampler.positions(int(run[0]), len(run))


def grains(length: int, seed: int) -> Callable[[Rows], Rows]:
    def rows(run: Rows) -> Rows:
        return np.array([index_shuffle(int(at), max_index=length - 1, seed=seed, rounds=4) for at in run])

    return rows


def examine(make: Callable[[int, int], Callable[[Rows], Rows]], length: int) -> dict[str, object]:
    """The worst score of all seeds, and what chance stays below."""
    found = [scores_of_order(make(length, seed), length, SAMPLE) for seed in SEEDS]
    name, score = worst(found)
    below = limit(sum(map(len, found)))
    return {"length": length, "worst": name, "score": score, "limit": below, "looks_like_chance": abs(score) < below}


def missing(make: Callable[[int, int], Callable[[Rows], Rows]], length: int) -> int:
    """Samples of an epoch that never come."""
    return length - len(np.unique(make(length, SEEDS[0])(np.arange(length))))


def main(largest: str) -> int:
    lengths = [length for length in LENGTHS if length <= int(largest)]
    makers = {"EpisodeSampler": ours, "grain index_shuffle, 4 rounds": grains}
    found = {
        name: {"scores": [examine(make, length) for length in lengths], "missing": missing(make, NOT_ONE_TO_ONE)}
        for name, make in makers.items()
    }
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
