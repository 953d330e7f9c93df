"""Every row of a file is looked at before the first is drawn: a bad one would end a run hours later."""

from collections.abc import Callable
from typing import BinaryIO, NamedTuple

from .lines import Progress, scan

MOST = 20  # bad rows that are told


class BadRow(NamedTuple):
    """What is wrong with a row."""

    line: int  # as editors count
    found: str


def bad_rows(file: BinaryIO, size: int, problem: Callable[[bytes], str | None], progress: Progress) -> list[BadRow]:
    """The first bad rows in the first `size` bytes of `file`, which stands at its beginning.

    At most one more than are told. `problem` gets the bytes of a row and says what is wrong with it, or None. Raises
    EOFError as `scan` does.
    """
    found: list[BadRow] = []
    before = 0
    for lines in scan(file, size, progress):
        blank = frozenset(lines.blank.tolist())
        for number, (begin, end) in enumerate(zip(lines.starts.tolist(), lines.ends.tolist(), strict=True)):
            if number in blank or (said := problem(lines.block[begin:end].strip())) is None:
                continue
            found.append(BadRow(before + number + 1, said))
            if len(found) > MOST:
                return found
        before += len(lines.ends)
    return found
