"""Prompts from a JSON-lines file, taken in file order by their position in the run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

KNOWN_KEYS = ("prompt", "question", "instruction", "text")


class PromptError(ValueError):
    """A prompt file cannot be used; the message names file, line and key."""


class Prompts(Sequence[str]):
    """Row `position % rows` is the prompt at `position`, so a run may be longer than its file."""

    def __init__(self, rows: list[str]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: Any) -> Any:
        return self._rows[position % len(self._rows)]


def read_prompts(path: str, key: str | None = None) -> Prompts:
    """Every prompt of `path`; `key` defaults to the first known key that the first row has.

    Raises:
        PromptError: The file is missing or empty, a line is no JSON object, or the key is absent or no text.
    """
    rows: list[str] = []
    for number, record in _records(path):
        if key is None:
            key = _find_key(path, number, record)
        if key not in record:
            raise PromptError(
                f"{path}, line {number}: no key {key!r}; it has {_names(record)}; choose with --prompt-key"
            )
        prompt = record[key]
        if not isinstance(prompt, str) or not prompt.strip():
            raise PromptError(f"{path}, line {number}, key {key!r}: expected a text that is not empty, got {prompt!r}")
        rows.append(prompt)
    if not rows:
        raise PromptError(f"{path}: no prompts; one JSON object per line is needed")
    return Prompts(rows)


def _records(path: str) -> list[tuple[int, dict[str, Any]]]:
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"{path}: cannot be read: {error}; choose a file with --prompt-file") from error
    return [(number, _record(path, number, line)) for number, line in enumerate(lines, 1) if line.strip()]


def _record(path: str, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise PromptError(f"{path}, line {number}: not JSON: {error}") from error
    if not isinstance(record, dict):
        raise PromptError(f"{path}, line {number}: expected a JSON object, got {type(record).__name__}")
    return record


def _find_key(path: str, number: int, record: dict[str, Any]) -> str:
    for key in KNOWN_KEYS:
        if key in record:
            return key
    raise PromptError(
        f"{path}, line {number}: none of the keys {', '.join(KNOWN_KEYS)}; it has {_names(record)}; "
        "choose with --prompt-key"
    )


def _names(record: dict[str, Any]) -> str:
    return ", ".join(record) or "no keys"
