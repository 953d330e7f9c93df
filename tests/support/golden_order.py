"""Writes golden_order.json: pieces of orders as this release has them. A diff is another order: say so in CHANGELOG.

Run by `make golden`.
"""

import json
from typing import Any

from megatron_resume.data import EpisodeSampler

from . import TESTS

GOLDEN = TESTS / "data" / "golden_order.json"

CASES: dict[str, dict[str, Any]] = {
    "one row": {"sizes": 1, "samples_per_episode": 4},
    "sorted by a hash": {"sizes": 1_000, "samples_per_episode": 64, "seed": 1},
    "the most rows that are sorted": {"sizes": 65_535, "samples_per_episode": 64, "seed": 2},
    "the fewest rows that are enciphered": {"sizes": 65_536, "samples_per_episode": 64, "seed": 3},
    "a billion rows": {"sizes": 10**9, "samples_per_episode": 1_024, "seed": 4},
    "the most rows": {"sizes": 2**53 - 1, "samples_per_episode": 1_024, "seed": 2**53 - 1},
    "unshuffled": {"sizes": 1_000, "samples_per_episode": 64, "shuffle": False},
    "whole episodes": {"sizes": 1_000, "samples_per_episode": 64, "drop_last": True},
    "by size": {"sizes": [30, 20, 70_000], "samples_per_episode": 64},
    "by weights": {"sizes": [10**9, 2_000, 70_000], "weights": [0.6, 0.1, 0.3], "samples_per_episode": 64},
    "weights that are rounded": {"sizes": [500, 500], "weights": [3.14159265, 1], "samples_per_episode": 64},
}
STARTS = (0, 997, 123_456_789)


def piece(sampler: EpisodeSampler, start: int) -> dict[str, Any]:
    return {"start": start, "positions": sampler.positions(start, 8).tolist(), "proof": sampler.proof(start)}


def golden(name: str) -> dict[str, Any]:
    if name in CASES:
        sampler = EpisodeSampler(**CASES[name])
        return {"given": CASES[name], "pieces": [piece(sampler, start) for start in STARTS]}
    grown = EpisodeSampler([120, 80, 50], weights=[1, 1, 2], samples_per_episode=32)
    before = EpisodeSampler([100, 80], weights=[2, 1], samples_per_episode=64)
    before.seek(128)
    grown.load_state_dict(before.state_dict(), on_dataset_change="append")
    return {"state": grown.state_dict(), "pieces": [piece(grown, start) for start in (120, *STARTS)]}


if __name__ == "__main__":
    text = "".join(f"{json.dumps(name)}: {json.dumps(golden(name))},\n" for name in (*CASES, "grown"))
    GOLDEN.write_text("{\n" + text.removesuffix(",\n") + "\n}\n", encoding="utf-8")
