"""Prompts from a file of JSON lines, of which only those in use are in memory."""

import hashlib
import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import msgspec

from ..errors import PromptError
from .index_cache import default_cache
from .lines import Progress
from .progress_log import ProgressLog
from .row_file import RowFile

KNOWN_KEYS = ("prompt", "question", "instruction", "text")
HOW_TO_CHOOSE = "choose one with key= (--prompt-key)"
SHOWN = 80  # characters of what a row holds that a message repeats


class JsonlPrompts(Sequence[str]):
    """Row i is the text under `key` in the i-th line that is not blank.

    A row is read and checked when it is drawn, the first and the last also at birth. Threads and forked processes may
    share it; pickled, it opens the file again.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        key: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ):
        """`key` defaults to the first known key that the first row has.

        The first start on a file reads all of it and keeps an index of its lines in `cache_dir`, by default
        $XDG_CACHE_HOME/megatron_resume/prompts. `progress` is called with the bytes done and in all; without it a
        reading that takes long is logged.

        Raises:
            PromptError: The file cannot be used, or its first or last row is no prompt.
        """
        self._rows = RowFile(Path(os.path.abspath(path)))
        cache = default_cache() if cache_dir is None else Path(cache_dir)
        self._rows.find_index(cache, progress or ProgressLog(f"Indexing {self._rows.path}"))
        if not len(self):
            raise PromptError(f"{self._rows.path}: no prompts; one JSON object per line is needed")
        self._key = self._find_key() if key is None else key
        _ = self[0], self[-1]

    @property
    def name(self) -> str:
        """The file's name; its folder may differ between starts."""
        return self._rows.path.name

    @property
    def key(self) -> str:
        """The key whose text is the prompt."""
        return self._key

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> list[str]: ...
    def __getitem__(self, position: int | slice) -> str | list[str]:
        """Raises PromptError where a row is no prompt, or the file was written to since it was opened."""
        if isinstance(position, slice):
            return [self._prompt(row) for row in range(len(self))[position]]
        return self._prompt(range(len(self))[operator.index(position)])

    def digest(self, rows: int) -> str:
        """Equal for equal content of the first `rows` rows under an equal key; for all rows it is known already.

        The content of a row is its bytes: the end of a line (LF, CRLF or none at the end of the file) and blank lines
        do not count, all else in its JSON does.

        Raises:
            ValueError: There are fewer rows.
            PromptError: The file was written to since it was opened.
        """
        if not 0 <= rows <= len(self):
            raise ValueError(f"{self.name} has {len(self)} rows, the digest of {rows} was asked for")
        return hashlib.sha256(f"{self._key}\n{self._rows.digest(rows)}".encode()).hexdigest()

    def _prompt(self, row: int) -> str:
        record = self._record(row)
        if self._key not in record:
            raise self._rows.error(row, f": no key {self._key!r}; it has {_names(record)}; {HOW_TO_CHOOSE}")
        prompt = record[self._key]
        if not isinstance(prompt, str) or not prompt.strip():
            expected = "expected a text that is not empty"
            raise self._rows.error(row, f", key {self._key!r}: {expected}, got {_brief(repr(prompt))}")
        return prompt

    def _record(self, row: int) -> dict[str, Any]:
        try:
            record = msgspec.json.decode(self._rows.read(row))
        except UnicodeDecodeError as error:
            raise self._rows.error(row, f": not UTF-8: {error.reason}") from error
        except (msgspec.DecodeError, RecursionError) as error:
            raise self._rows.error(row, f": not JSON: {error}") from error
        if not isinstance(record, dict):
            raise self._rows.error(row, f": expected a JSON object, got {type(record).__name__}")
        return record

    def _find_key(self) -> str:
        record = self._record(0)
        for key in KNOWN_KEYS:
            if key in record:
                return key
        none = f": none of the keys {', '.join(KNOWN_KEYS)}; it has {_names(record)}; {HOW_TO_CHOOSE}"
        raise self._rows.error(0, none)


def _names(record: dict[str, Any]) -> str:
    return _brief(", ".join(record)) or "no keys"


def _brief(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
