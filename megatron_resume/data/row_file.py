"""A text file of many rows, each read when it is asked for; it must stay as it was when it was opened."""

import os
import weakref
from collections.abc import Callable
from pathlib import Path

from ..checkpoint.plain_files import open_plain
from ..errors import PromptError
from ..shown import shown_in_line
from .index_cache import check_once, find_or_build
from .line_index import LineIndex, Source
from .lines import Progress, digest_of_content
from .row_check import MOST, BadRow, bad_rows

NOT_TEXT = {  # how files begin that are mistaken for text, and what to do with them
    b"\x1f\x8b": "packed with gzip; unpack it (gunzip)",
    b"\x28\xb5\x2f\xfd": "packed with zstd; unpack it (unzstd)",
    b"\xfd7zXZ": "packed with xz; unpack it (unxz)",
    b"PAR1": "a Parquet file; write its rows as JSON lines",
    b"\xef\xbb\xbf": "text behind a byte order mark; save it as UTF-8 without one",
    b"\xff\xfe": "UTF-16; save it as UTF-8",
    b"\xfe\xff": "UTF-16; save it as UTF-8",
}


class RowFile:
    """The rows of a file, as bytes. Threads and forked processes may share it; pickled, it opens the file again."""

    def __init__(self, path: Path, source: Source | None = None):
        """`source` is what the file must still be.

        Raises:
            PromptError: It cannot be opened, is no text, or is no longer `source`.
        """
        self.path = path
        try:
            self._file = open_plain(path.resolve())  # data may be links
        except (OSError, RuntimeError) as error:
            raise self._unreadable(error) from error
        weakref.finalize(self, self._file.close)
        self._source = Source.of(path, os.fstat(self._file.fileno()))
        if source not in (None, self._source):
            raise self._changed()
        self._refuse_what_is_no_text()

    def find_index(self, cache: Path | None, progress: Progress) -> None:
        """Learn where the rows are; to be called once, before all below."""
        try:
            self._index: LineIndex = find_or_build(self._file, self._source, cache, progress)
        except EOFError as error:
            raise self._changed() from error
        except OSError as error:
            raise self._unreadable(error) from error
        self._check_unchanged()

    def __len__(self) -> int:
        return len(self._index)

    def read(self, row: int) -> bytes:
        """The bytes of a row, between 0 and the number of rows, without what surrounds it.

        Raises:
            PromptError: The file cannot be read, or was written to since it was opened.
        """
        begin, end = self._index.span(row)
        try:
            data = os.pread(self._file.fileno(), end - begin, begin)
        except OSError as error:
            raise self._unreadable(error) from error
        self._check_unchanged()  # afterwards, so that it holds for what was read
        return data.strip()

    def refuse_bad_rows(
        self, cache: Path | None, what: str, problem: Callable[[bytes], str | None], progress: Progress
    ) -> None:
        """Look at each row, unless a start on this file has done so for `what`, which names what is looked for.

        Raises:
            PromptError: `problem` found something; the first 20 rows are named.
        """

        def check() -> None:
            try:
                with open_plain(self.path.resolve()) as file:
                    if not self._source.is_still(os.fstat(file.fileno())):
                        raise self._changed()  # another file came in its place
                    found = bad_rows(file, self._source.size, problem, progress)
            except EOFError as error:
                raise self._changed() from error
            except OSError as error:
                raise self._unreadable(error) from error
            self._check_unchanged()
            if found:
                raise self._bad(found)

        check_once(self._source, cache, what, check)

    def _bad(self, found: list[BadRow]) -> PromptError:
        if len(found) == 1:
            return PromptError(shown_in_line(f"{self.path}, line {found[0].line}{found[0].found}"))
        told = "".join(f"\n  line {row.line}{shown_in_line(row.found)}" for row in found[:MOST])
        first = f"the first {MOST} of them" if len(found) > MOST else f"{len(found)} rows"
        return PromptError(f"{shown_in_line(str(self.path))} has rows that are no prompts, {first}:{told}")

    def digest(self, rows: int) -> str:
        """The digest of the content of the first rows, at once for all of them."""
        if rows == len(self):
            return self._index.content
        size = self._index.span(rows)[0]
        try:
            with open_plain(self.path.resolve()) as file:
                if not self._source.is_still(os.fstat(file.fileno())):
                    raise self._changed()  # another file came in its place
                digest = digest_of_content(file, size)
        except EOFError as error:
            raise self._changed() from error
        except OSError as error:
            raise self._unreadable(error) from error
        self._check_unchanged()
        return digest

    def error(self, row: int, found: str) -> PromptError:
        """What is wrong with a row."""
        return PromptError(shown_in_line(f"{self.path}, line {self._index.line(row)}{found}"))

    def __reduce__(self) -> tuple[object, ...]:
        return _reopen, (self.path, self._source, self._index)

    def _refuse_what_is_no_text(self) -> None:
        begin = os.pread(self._file.fileno(), max(map(len, NOT_TEXT)), 0)
        for magic, what in NOT_TEXT.items():
            if begin.startswith(magic):
                raise self._refused(f"it is {what}; JSON lines are needed")

    def _check_unchanged(self) -> None:
        if not self._source.is_still(os.fstat(self._file.fileno())):
            raise self._changed()

    def _changed(self) -> PromptError:
        return self._refused("it was written to while it was in use; start again with files that nobody writes to")

    def _unreadable(self, error: Exception) -> PromptError:
        return self._refused(
            f"cannot be read: {getattr(error, 'strerror', None) or error}; choose a file of JSON lines"
        )

    def _refused(self, why: str) -> PromptError:
        return PromptError(shown_in_line(f"{self.path}: {why}"))


def _reopen(path: Path, source: Source, index: LineIndex) -> RowFile:
    file = RowFile(path, source)
    file._index = index
    return file
