"""Words as bash reads them back, in text that a terminal shows and does not obey."""

import shlex
from collections.abc import Iterable


def quoted(word: str) -> str:
    """One word for bash: as `shlex` has it, and with control characters as escapes."""
    if all(character.isprintable() or character == "\n" for character in word):
        return shlex.quote(word)
    return f"$'{''.join(map(_escaped, word))}'"


def joined(words: Iterable[str]) -> str:
    """A command line for bash."""
    return " ".join(map(quoted, words))


def _escaped(character: str) -> str:
    if character in "'\\":
        return "\\" + character
    if character.isprintable():
        return character
    # Bytes: what \u becomes depends on the locale of whoever reads it.
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
