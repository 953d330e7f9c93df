"""The order looks like chance, by scores that see too few rounds."""

from collections.abc import Iterable

import numpy as np
import pytest

from megatron_resume.data.epochs import Epochs
from megatron_resume.data.keys import key_words
from megatron_resume.data.permutation import WORDS_PER_ROUND, Permutation
from support.quality import Rows, Scores, limit, scores_of_order, scores_of_pairs, worst

LENGTHS = [10**6, 10**9, 2**30, 2**29 + 1]
SAMPLE = 1 << 16
QUICK, ALL = range(3), range(20)


class Order:
    """Rows of one dataset by position."""

    def __init__(self, length: int, seed: int, dataset: int = 0) -> None:
        self._epochs = Epochs(seed, dataset, shuffle=True, rows=length, length=length)

    def __call__(self, run: Rows) -> Rows:
        return self._epochs.rows(int(run[0]), len(run))


def scores(length: int, seed: int, sample: int = SAMPLE) -> Scores:
    """Of one seed's order, and of how it goes with that of the next epoch, seed and dataset."""
    order, run = Order(length, seed), np.arange(sample)
    found = scores_of_order(order, length, sample)
    others = {
        "epoch": order(run + length),
        "seed": Order(length, seed + 1)(run),
        "dataset": Order(length, seed, dataset=1)(run),
    }
    for name, rows in others.items():
        found |= {f"next {name}: {what}": z for what, z in scores_of_pairs(order(run), rows, length).items()}
    return found


def looks_like_chance(found: Iterable[Scores]) -> bool:
    found = list(found)
    name, z = worst(found)
    print(name, z)  # shown where it fails
    return abs(z) < limit(sum(map(len, found)))


def few_rounds(length: int, rounds: int, seed: int) -> Scores:
    return scores_of_order(Permutation(length, key_words(seed, 0, 0, rounds * WORDS_PER_ROUND)), length, SAMPLE)


@pytest.mark.parametrize("length", LENGTHS)
def test_the_order_looks_like_chance(length: int) -> None:
    assert looks_like_chance(scores(length, seed) for seed in QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("length", [70_001, *LENGTHS, 10**12])
def test_the_order_of_twenty_seeds_looks_like_chance(length: int) -> None:
    assert looks_like_chance(scores(length, seed, min(SAMPLE, length // 8)) for seed in ALL)


@pytest.mark.slow
@pytest.mark.parametrize("length", LENGTHS[1:])
def test_a_million_samples_of_an_order_look_like_chance(length: int) -> None:
    assert looks_like_chance(scores(length, seed, 1 << 20) for seed in QUICK)


def test_an_order_that_is_sorted_by_a_hash_looks_like_chance() -> None:
    assert looks_like_chance(scores(60_000, seed, 1 << 12) for seed in QUICK)


def test_the_scores_take_numpys_permutation_for_chance() -> None:
    orders = [np.random.default_rng(seed).permutation(10**6) for seed in QUICK]
    assert looks_like_chance(scores_of_order(rows.__getitem__, 10**6, SAMPLE) for rows in orders)


@pytest.mark.parametrize("length", LENGTHS)
def test_the_scores_take_samples_of_numpy_for_chance(length: int) -> None:
    def numpys(seed: int) -> Scores:
        generator = np.random.default_rng(seed)
        return scores_of_order(lambda run: generator.integers(0, length, len(run)), length, SAMPLE)

    assert looks_like_chance(numpys(seed) for seed in QUICK)


@pytest.mark.parametrize("length", LENGTHS)
def test_the_scores_see_three_rounds(length: int) -> None:
    assert not looks_like_chance(few_rounds(length, 3, seed) for seed in QUICK)


def test_the_scores_see_four_rounds() -> None:
    assert not looks_like_chance(few_rounds(10**6, 4, seed) for seed in range(8))


def test_the_scores_see_that_equal_seeds_share_an_order() -> None:
    rows = Order(10**9, 1)(np.arange(SAMPLE))
    assert not looks_like_chance([scores_of_pairs(rows, rows.copy(), 10**9)])


def test_the_scores_see_rows_in_their_own_order() -> None:
    assert not looks_like_chance([scores_of_order(lambda run: run, 10**9, SAMPLE)])
