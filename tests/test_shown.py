"""Text from disk is shown character by character, whichever way is taken."""

import pytest

from megatron_resume.shown import FEW, shown


@pytest.mark.parametrize("times", [1, 3_000])
@pytest.mark.parametrize("kinds", [1, FEW, FEW + 1, 3 * FEW])
def test_each_character_that_moves_a_cursor_is_shown_and_lines_stay(kinds: int, times: int) -> None:
    unprintable = [chr(code) for code in range(0x2FFFF) if not chr(code).isprintable() and chr(code) != "\n"][:kinds]
    text = "".join(f"a\\{character}\n\u4e2d" for character in unprintable)
    expected = "".join(f"a\\{ascii(character)[1:-1]}\n\u4e2d" for character in unprintable)
    assert shown(text * times) == expected * times


def test_a_text_of_which_all_is_printable_stays_as_it_is() -> None:
    assert shown("\u4e2d \\x1b") == "\u4e2d \\x1b"
