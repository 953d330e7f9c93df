"""`patch check|apply|revert DIR`: our one line in the entrypoints of a source tree, in and out again."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from megatron_resume.errors import MismatchError
from megatron_resume.patching import patch
from megatron_resume.patching.diff import diff
from megatron_resume.patching.patch import BY_HAND, LINES, NOT_PATCHED, PATCHED, State
from megatron_resume.shown import shown, shown_in_line

from .values import as_json, text_of


def check(directory: Path, *, skip: Sequence[str], as_diff: bool, json: bool) -> int:
    """Say of each entrypoint whether it holds our line; 78 unless each does.

    Raises:
        ResumeError: There is no entrypoint, or the folder or its record cannot be read.
    """
    states = patch.check(_root(directory), skip)
    if as_diff:
        text = "".join(diff(str(one.path), one.patch.after_line, LINES[one.kind]) for one in states if one.patch)
        print(shown(text) if sys.stdout.isatty() else text, end="")  # as it is for `git apply`
    else:
        _print(states, json=json)
    return 0 if all(one.state in (PATCHED, BY_HAND) for one in states) else MismatchError.exit_code


def apply(directory: Path, *, skip: Sequence[str], json: bool) -> int:
    """Put our line into each entrypoint that lacks it, or raise without having changed anything."""
    states = patch.apply(_root(directory), skip)
    _print([one._replace(state=f"{PATCHED} now") if one.state == NOT_PATCHED else one for one in states], json=json)
    return 0


def revert(directory: Path, *, json: bool) -> int:
    """Take our line out of what `apply` patched, or raise without having changed anything."""
    states = patch.revert(_root(directory))
    _print(states, json=json)
    if not states and not json:
        print("Nothing was patched here.")
    return 0


def _root(directory: Path) -> Path:
    return Path(os.path.abspath(directory))


def _print(states: list[State], *, json: bool) -> None:
    if json:
        print(as_json({"files": [_row(one) for one in states]}))
        return
    for one in states:
        after = f", below line {one.patch.after_line}" if one.patch else ""
        remark = f" ({one.remark})" if one.remark else ""
        print(shown_in_line(f"{text_of(str(one.path))}: {one.state}{after}{remark}"))


def _row(one: State) -> dict[str, object]:
    return {
        "path": text_of(str(one.path)),
        "kind": one.kind,
        "state": one.state,
        "remark": text_of(one.remark),
        "after_line": one.patch.after_line if one.patch else None,
    }
