"""Every prefix of a mixture keeps to the weights, to within one sample for each dataset."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_resume.data.mixture import Mixture
from megatron_resume.data.permutation import BLOCK
from megatron_resume.data.weights import MAX_CYCLE, coarse, shares, slots_of

some_slots = st.lists(st.integers(1, 40), min_size=1, max_size=12)
some_weights = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=8)


def owners(mixture: Mixture, start: int, count: int) -> np.ndarray:
    pieces = [mixture.datasets(at, min(BLOCK, start + count - at)) for at in range(start, start + count, BLOCK)]
    return np.concatenate(pieces).astype(int)


def counts(found: np.ndarray, datasets: int) -> np.ndarray:
    """Of each dataset in each prefix: shape (len(found), datasets)."""
    return np.cumsum(found[:, np.newaxis] == np.arange(datasets), axis=0)


@given(slots=some_slots)
def test_every_prefix_is_within_tijdemans_bound(slots: list[int]) -> None:
    cycle, length = sum(slots), 2 * sum(slots) + 3
    times = np.arange(1, length + 1)[:, np.newaxis]
    off = np.abs(counts(owners(Mixture(slots), 0, length), len(slots)) * cycle - times * np.array(slots)).max()
    assert Fraction(int(off), cycle) <= 1 - Fraction(1, max(2, 2 * len(slots) - 2)) < 1


@given(slots=some_slots, start=st.integers(0, 1 << 50), count=st.integers(1, 300))
def test_every_window_is_within_two_samples(slots: list[int], start: int, count: int) -> None:
    found = np.bincount(owners(Mixture(slots), start, count), minlength=len(slots))
    assert (np.abs(found - count * np.array(slots) / sum(slots)) < 2).all()


@given(slots=some_slots, start=st.integers(0, 500), count=st.integers(1, 300))
def test_parts_are_the_same_mixture_with_ordinals_counted_on(slots: list[int], start: int, count: int) -> None:
    mixture = Mixture(slots)
    whole = owners(mixture, 0, start + count)
    parts = {part.dataset: part for part in mixture.parts(start, count)}
    assert sorted(parts) == sorted(set(whole[start:].tolist()))
    for dataset, part in parts.items():
        assert part.places.tolist() == np.flatnonzero(whole[start:] == dataset).tolist()
        assert part.first == (whole[:start] == dataset).sum()


@given(slots=some_slots, samples=st.integers(0, 1 << 40))
def test_counts_are_those_of_the_cycles_and_what_follows(slots: list[int], samples: int) -> None:
    cycles, rest = divmod(samples, sum(slots))
    begun = np.bincount(owners(Mixture(slots), 0, rest + 1)[:rest], minlength=len(slots))
    assert Mixture(slots).counts(samples).tolist() == (cycles * np.array(slots) + begun).tolist()


@pytest.mark.parametrize(
    ("weights", "slots"),
    [
        ([0.1, 0.2, 0.7], (1, 2, 7)),
        ([3, 1], (3, 1)),
        ([0.5, 0.5], (1, 1)),
        ([99.99, 0.01], (9999, 1)),
        ([1 / 3, 2 / 3], (1, 2)),
        ([5.0], (1,)),
    ],
)
def test_decimal_weights_are_exact_in_the_smallest_cycle(weights: list[float], slots: tuple[int, ...]) -> None:
    assert slots_of(shares(weights, [10] * len(weights))) == slots


def test_without_weights_datasets_are_mixed_by_size() -> None:
    assert slots_of(shares([], [200, 100, 700])) == (2, 1, 7)


@given(weights=some_weights)
def test_slots_are_one_at_least_and_as_many_as_the_cycle_has(weights: list[float]) -> None:
    wanted = shares(weights, [1] * len(weights))
    slots = slots_of(wanted)
    assert min(slots) >= 1 and sum(slots) <= MAX_CYCLE
    assert sum(slots) == MAX_CYCLE or all(
        Fraction(slot, sum(slots)) == share for slot, share in zip(slots, wanted, strict=True)
    )


@given(weights=some_weights)
def test_a_share_that_is_due_a_hundred_slots_is_not_coarse(weights: list[float]) -> None:
    wanted = shares(weights, [1] * len(weights))
    slots = slots_of(wanted)
    assert {number for number, _, _ in coarse(wanted, slots)} <= {
        number for number, share in enumerate(wanted) if share * MAX_CYCLE < 110
    }


def test_a_share_below_one_slot_is_told_as_coarse() -> None:
    wanted = shares([], [10**9 + 7, 12, 5 * 10**8])
    assert [(number, has) for number, _, has in coarse(wanted, slots_of(wanted))] == [(1, 1 / MAX_CYCLE)]


def test_more_datasets_than_slots_are_refused() -> None:
    with pytest.raises(ValueError, match="65,537 datasets; mix 65,536 at most"):
        slots_of([Fraction(1, MAX_CYCLE + 1)] * (MAX_CYCLE + 1))
