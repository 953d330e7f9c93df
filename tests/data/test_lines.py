"""One pass over a file finds the rows that a plain reader finds, wherever a block happens to end."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_resume.data import lines
from megatron_resume.data.lines import digest_of_content, scan, silent

PIECES = [
    b"\n",
    b"\r\n",
    b"\r",
    b" ",
    b"\t",
    b'{"prompt": "a"}',
    b"{}",
    "é\u2028".encode(),
    b"\xff",
    b"\x00",
    b"\x0b\x0c",
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.binary(max_size=9), max_size=30).map(b"".join)
SMALL = st.integers(1, 12)  # bytes of a block


def rows_of(data: bytes) -> list[bytes]:
    """What a row is, in one line."""
    return [line.removesuffix(b"\r") for line in data.split(b"\n") if line.strip()]


def scanned(data: bytes) -> list[bytes]:
    rows = []
    for found in scan(io.BytesIO(data), len(data), silent):
        blank = set(found.blank)
        for line, (start, end) in enumerate(zip(found.starts, found.ends, strict=True)):
            if line not in blank:
                rows.append(found.block[start:end].removesuffix(b"\r"))
    return rows


def digest(data: bytes) -> str:
    return digest_of_content(io.BytesIO(data), len(data))


@given(TEXTS, SMALL)
def test_the_rows_are_those_of_a_plain_reader(data: bytes, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK", block)
        assert scanned(data) == rows_of(data)


@given(TEXTS, SMALL)
def test_where_blocks_end_does_not_change_the_digest(data: bytes, block: int) -> None:
    whole = digest(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK", block)
        assert digest(data) == whole


@given(TEXTS, TEXTS)
def test_digests_are_equal_exactly_when_the_rows_are(one: bytes, other: bytes) -> None:
    assert (digest(one) == digest(other)) == (rows_of(one) == rows_of(other))


@given(st.lists(st.binary(min_size=1).filter(lambda row: row.strip() and b"\n" not in row and row[-1:] != b"\r")))
def test_blank_lines_and_kinds_of_line_ends_do_not_change_the_digest(rows: list[bytes]) -> None:
    unix = b"".join(row + b"\n" for row in rows)
    windows = b"\r\n \r\n".join(rows)
    assert digest(unix) == digest(windows)


def test_a_file_that_became_shorter_is_noticed() -> None:
    with pytest.raises(EOFError):
        list(scan(io.BytesIO(b"a\nb\n"), 5, silent))


def test_progress_ends_with_all_bytes_of_a_file_without_a_last_newline() -> None:
    calls: list[tuple[int, int]] = []
    list(scan(io.BytesIO(b"a\nb"), 3, lambda done, total: calls.append((done, total))))
    assert calls[-1] == (3, 3)
