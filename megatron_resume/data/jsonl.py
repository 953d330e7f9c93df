"""Prompts from a file of JSON lines, of which only those in use are in memory."""

import hashlib
import json
import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias, overload

import msgspec

from ..errors import PromptError
from .index_cache import default_cache
from .lines import Progress, silent
from .progress_log import ProgressLog
from .row_file import RowFile

KNOWN_KEYS = ("prompt", "question", "instruction", "text")
HOW_TO_CHOOSE = "choose one with key= (--prompt-key)"
SHOWN = 80  # characters of what a row holds that a message repeats


Prompt: TypeAlias = str | list[dict[str, Any]]  # a text, or the messages of a chat


class _NoPrompt(Exception):
    """What is wrong with a row, as it follows its line number."""


class JsonlPrompts(Sequence[Prompt]):
    """Row i is the prompt under `key` in the i-th line that is not blank: a text, or a list of chat messages.

    Lines are read as Python's json reads them, NaN, Infinity and single surrogates included. The first start on a file
    checks every row. Threads and forked processes may share it; pickled, it opens the file again.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        key: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
        check: bool = True,
    ):
        """`key` defaults to the first known key that the first row has.

        The first start on a file reads all of it and keeps an index of its lines in `cache_dir`, by default
        $XDG_CACHE_HOME/megatron_resume/prompts. `progress` is called with the bytes done and in all; without it a
        reading that takes long is logged. Without `check` a bad row is an error when it is drawn: for a subclass that
        catches it.

        Raises:
            PromptError: The file cannot be used, or rows of it are no prompts.
        """
        self._rows = RowFile(Path(os.path.abspath(path)))
        cache = default_cache() if cache_dir is None else Path(cache_dir)
        self._rows.find_index(cache, progress or ProgressLog(f"Indexing {self._rows.path}"))
        if not len(self):
            raise PromptError(f"{self._rows.path}: no prompts; one JSON object per line is needed")
        self._key = self._find_key() if key is None else key
        if not check:
            return
        quiet = silent if progress is not None else ProgressLog(f"Checking {self._rows.path}")
        self._rows.refuse_bad_rows(cache, f"prompts 1 {self._key}", self._problem, quiet)

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
    def __getitem__(self, position: int) -> Prompt: ...
    @overload
    def __getitem__(self, position: slice) -> list[Prompt]: ...
    def __getitem__(self, position: int | slice) -> Prompt | list[Prompt]:
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
        return hashlib.sha256(f"{self._key}\n{self._rows.digest(rows)}".encode("utf-8", "surrogatepass")).hexdigest()

    def _prompt(self, row: int) -> Prompt:
        try:
            return self._prompt_in(self._rows.read(row))
        except _NoPrompt as error:
            raise self._rows.error(row, str(error)) from error.__cause__

    def _problem(self, data: bytes) -> str | None:
        try:
            self._prompt_in(data)
        except _NoPrompt as error:
            return str(error)
        return None

    def _prompt_in(self, data: bytes) -> Prompt:
        record = _record(data)
        if self._key not in record:
            raise _NoPrompt(f": no key {self._key!r}; it has {_names(record)}; {HOW_TO_CHOOSE}")
        prompt: Prompt = record[self._key]
        if (isinstance(prompt, str) and prompt.strip()) or _is_chat(prompt):
            if not _is_text(prompt):
                raise _NoPrompt(f", key {self._key!r}: half a pair of surrogates, which no tokenizer takes")
            return prompt
        expected = "expected a text that is not empty, or a list of chat messages (role, content)"
        raise _NoPrompt(f", key {self._key!r}: {expected}, got {_brief(repr(prompt))}")

    def _find_key(self) -> str:
        try:
            record = _record(self._rows.read(0))
        except _NoPrompt as error:
            raise self._rows.error(0, str(error)) from error.__cause__
        for key in KNOWN_KEYS:
            if key in record:
                return key
        none = f": none of the keys {', '.join(KNOWN_KEYS)}; it has {_names(record)}; {HOW_TO_CHOOSE}"
        raise self._rows.error(0, none)


def _record(data: bytes) -> dict[str, Any]:
    try:
        record = _decoded(data)
    except UnicodeDecodeError as error:
        raise _NoPrompt(f": not UTF-8: {error.reason}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise _NoPrompt(f": not JSON: {error}") from error
    if not isinstance(record, dict):
        raise _NoPrompt(f": expected a JSON object, got {type(record).__name__}")
    return record


def _decoded(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        # What Python's json writes and no standard knows: NaN, Infinity, 1e999, half of a pair of surrogates.
        try:
            return json.loads(data.decode())
        except ValueError:
            pass
        raise


def _is_text(prompt: Prompt) -> bool:
    try:
        (prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False)).encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_chat(prompt: object) -> bool:
    """Whether it is what chat templates take: messages, each with a role and a content."""
    return isinstance(prompt, list) and all(map(_is_message, prompt)) and any(one["content"] for one in prompt)


def _is_message(message: object) -> bool:
    return isinstance(message, dict) and bool(message.get("role")) and "content" in message


def _names(record: dict[str, Any]) -> str:
    return _brief(", ".join(record)) or "no keys"


def _brief(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
