"""Every index has one row, and every row one index, whatever the length is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_resume.data.epochs import SORTED_BELOW, Epochs, sorted_orders
from megatron_resume.data.keys import key_words
from megatron_resume.data.permutation import BLOCK, MAX_LENGTH, NARROW_BELOW, ROUNDS, WORDS_PER_ROUND, Permutation
from support.reference import Cipher

POWERS = [2**k + d for k in range(1, 18) for d in (-1, 0, 1)]
SPREAD = [*range(2_003, 70_000, 1_709), SORTED_BELOW - 1, SORTED_BELOW, SORTED_BELOW + 1, 70_000]


def key(epoch: int = 0) -> tuple[int, ...]:
    return key_words(7, 3, epoch, ROUNDS * WORDS_PER_ROUND)


def is_complete(rows: np.ndarray, length: int) -> bool:
    return rows.min() >= 0 and rows.max() < length and (np.bincount(rows, minlength=length) == 1).all()


def test_the_cipher_is_a_bijection_of_every_length_to_2000() -> None:
    assert [n for n in range(1, 2_001) if not is_complete(Permutation(n, key()).span(0, n), n)] == []


@pytest.mark.slow
def test_the_cipher_is_a_bijection_of_every_length_to_70000() -> None:
    assert [n for n in range(2_001, 70_001) if not is_complete(Permutation(n, key()).span(0, n), n)] == []


def test_the_cipher_is_a_bijection_around_powers_of_two_and_in_between() -> None:
    lengths = [n for n in POWERS + SPREAD if n > 0]
    assert [n for n in lengths if not is_complete(Permutation(n, key()).span(0, n), n)] == []


def test_an_epoch_has_every_row_once_for_every_number_of_rows_to_2000_and_beyond() -> None:
    def epoch(rows: int) -> np.ndarray:
        return Epochs(0, 0, shuffle=True, rows=rows, length=rows).rows(rows, rows)

    assert [n for n in [*range(1, 2_001), *POWERS, *SPREAD] if not is_complete(epoch(n), n)] == []


@given(
    length=st.integers(1, MAX_LENGTH) | st.integers(1, NARROW_BELOW + 5),
    at=st.floats(0, 1),
    epoch=st.integers(0, 1 << 60),
)
def test_numpy_finds_what_whole_numbers_of_python_find_and_back(length: int, at: float, epoch: int) -> None:
    cipher = Cipher(length, key(epoch))
    indices = sorted({0, length - 1, min(int(at * length), length - 1), length // 2})
    rows = Permutation(length, key(epoch))(np.array(indices)).tolist()
    assert rows == [cipher.row(index) for index in indices]
    assert [cipher.index(row) for row in rows] == indices


@pytest.mark.parametrize("length", [10**6, 2**29 + 1, 2**31, 2**32 - 1, 2**32, 10**12, 2**53 - 1, MAX_LENGTH])
def test_no_row_of_a_run_comes_twice_in_a_large_permutation(length: int) -> None:
    rows = Permutation(length, key()).span(length - 150_000, length)
    assert 0 <= rows.min() <= rows.max() < length
    assert len(np.unique(rows)) == 150_000


def test_a_piece_is_the_same_however_it_is_asked_for() -> None:
    permutation = Permutation(10**9, key())
    whole = permutation.span(5, 5 + 2 * BLOCK + 17)
    assert (whole[BLOCK - 3 : BLOCK + 9] == permutation.span(BLOCK + 2, BLOCK + 14)).all()
    assert (whole == permutation(np.arange(5, 5 + 2 * BLOCK + 17))).all()


@pytest.mark.parametrize("length", [0, -1, MAX_LENGTH + 1])
def test_a_length_beyond_the_bounds_is_refused_by_name(length: int) -> None:
    with pytest.raises(ValueError, match=r"no permutation of .* 1 to 2\^62 are possible"):
        Permutation(length, key())


def test_a_key_of_half_a_round_is_refused() -> None:
    with pytest.raises(ValueError, match="a key of 3 words"):
        Permutation(10, (1, 2, 3))


def test_keys_of_neighbouring_seeds_datasets_and_epochs_share_no_word() -> None:
    keys = [key_words(s, d, e, 12) for s in range(4) for d in range(4) for e in range(4)]
    assert len({word for one in keys for word in one}) == 4 * 4 * 4 * 12


def test_the_next_seed_is_not_the_next_epoch() -> None:
    first = Epochs(1, 0, shuffle=True, rows=1_000, length=1_000).rows(1_000, 1_000)
    assert (first != Epochs(2, 0, shuffle=True, rows=1_000, length=1_000).rows(0, 1_000)).any()


def test_orders_of_few_rows_are_all_about_equally_frequent() -> None:
    orders = sorted_orders(4, [key(epoch) for epoch in range(24_000)]).astype(int)
    counts = np.unique(orders @ [64, 16, 4, 1], return_counts=True)[1]
    assert len(counts) == 24  # factorial of 4
    assert ((counts - 1_000) ** 2 / 1_000).sum() < 60  # chi-square of 23 degrees, beyond 60 at 4 in 100,000
