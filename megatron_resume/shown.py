"""Text from disk for terminals and logs: control characters are shown, not obeyed."""

import logging

FEW = 32  # different characters, each of which is looked for in the whole text


def shown(text: str) -> str:
    """`text` without characters that move a cursor, change colours or turn the direction of writing; lines stay."""
    if text.isprintable():
        return text
    unprintable = [character for character in set(text) if not character.isprintable() and character != "\n"]
    if len(unprintable) > FEW:
        return "".join(map(_shown, text))
    for character in unprintable:
        text = text.replace(character, _shown(character))
    return text


def shown_in_line(text: str) -> str:
    """The same in one line."""
    return shown(text).replace("\n", "\\n")


def shown_in_json(text: str) -> str:
    """The same for a JSON text, which says the same as before: such characters stand in its strings only."""
    return text if text.isprintable() else "".join(map(_shown_in_json, text))


def _shown(character: str) -> str:
    return character if character.isprintable() or character == "\n" else ascii(character)[1:-1]


def _shown_in_json(character: str) -> str:
    if character.isprintable() or character == "\n":
        return character
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))


class Shown(logging.Filter):
    """Lets every record pass, as text that is shown."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = shown(record.getMessage()), ()
        return True
