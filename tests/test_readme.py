"""README shows the flags with the text that --help shows."""

import argparse
from pathlib import Path

import pytest

from megatron_resume.config import add_flags

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()
FLAGS = [action for action in add_flags(argparse.ArgumentParser(add_help=False))._actions if action.dest != "help"]


@pytest.mark.parametrize("action", FLAGS, ids=lambda action: action.dest)
def test_readme_explains_the_flag_as_help_does(action: argparse.Action) -> None:
    flag = action.option_strings[0]
    row = next(line for line in README.splitlines() if line.startswith("| `--") and flag[2:] in line)
    assert action.help is not None
    text, _, _ = action.help.rpartition(" [")
    assert row.split("|")[2].strip() == text
