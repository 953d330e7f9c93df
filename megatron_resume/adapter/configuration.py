"""A role's configuration: kept for its receipts, and compared with that of the resume point before it is loaded."""

import logging
import sys
from pathlib import Path
from typing import Any

from msgspec import UNSET

from ..checkpoint.folder import ResumePoint
from ..checkpoint.layout import DIGEST_KEY
from ..errors import MismatchError
from ..installed import installed_versions
from ..resume.base_options import handed_on
from ..resume.differences import CHANGED, Configuration, Difference, differences
from ..resume.effects import Exact
from ..resume.recorded import Arguments, plain
from ..resume.sealed import as_recorded, incomparable
from ..shown import shown
from . import base_options, native_loaders, ranks
from .sealing import key_for_comparing
from .session import Session

logger = logging.getLogger("megatron_resume")

INEXACT = (Exact.NO, Exact.UNKNOWN)
CELL = 60  # most characters of a value in a table


def compare(current: Session, role: str, args: Any) -> None:
    """Note the arguments with which `role` was started, and say what changed in them; the first call counts.

    Both sides are of this moment, so what a script does to its arguments later is no difference.

    Raises:
        MismatchError: Megatron cannot load the resume point with them, or would not go on with its data.
        ConfigError: They ask for another iteration than that of the resume point.
    """
    if role in current.arguments:
        return
    arguments = plain(vars(args))
    if current.resumes is not None:
        if not current.evaluates:  # nothing goes on
            _compare(current.root, role, current.resumes.point, arguments)
            native_loaders.check(current, role, current.resumes.point, arguments)
        base_options.tell_of_ignored(current, role, args)
        arguments = handed_on(arguments, base_options.first_options(role, current.resumes.point))
    current.arguments[role] = arguments


def _compare(root: Path, role: str, point: ResumePoint, arguments: Arguments) -> None:
    receipt = point.receipts[role]
    if receipt.arguments is UNSET or receipt.versions is UNSET:
        if ranks.rank() == 0:
            logger.warning(
                "%s: %s does not say with what configuration it was saved; nothing is compared", role, point.name
            )
        return
    key = key_for_comparing(root)
    unknown = incomparable(receipt.arguments, key)
    if unknown and ranks.rank() == 0:
        logger.warning(
            "%s: whether %s changed cannot be told: %s is not the key with which their digests were made",
            role,
            f"{len(unknown)} arguments" if len(unknown) > 1 else unknown[0],
            root / DIGEST_KEY,
        )
    found = differences(
        Configuration(receipt.arguments, receipt.versions),
        Configuration(as_recorded(arguments, receipt.arguments, key), installed_versions()),
        matched_by_optimizer=_matched_by_optimizer(),
    )
    refused = _refused(found)
    if refused:
        raise MismatchError(f"start refused: {role} cannot continue from {point.name} like this:\n{refused}")
    if found and ranks.rank() == 0:
        level = logging.WARNING if any(one.exact in INEXACT for one in found) else logging.INFO
        logger.log(
            level, "%s continues from %s, saved with another configuration:\n%s", role, point.name, _table(found)
        )


def _matched_by_optimizer() -> tuple[str, ...]:
    """By what Megatron finds the state of a parameter group: from 0.19 on by its learning rates, too."""
    optimizer = sys.modules.get("megatron.core.optimizer.optimizer")  # whoever can train has imported it
    return tuple(getattr(optimizer, "param_group_identifier_keys", ()))


def _refused(found: tuple[Difference, ...]) -> str:
    by_need: dict[str, list[str]] = {}
    for one in found:
        if one.needed:
            by_need.setdefault(one.needed, []).append(f"{_cell(one.name)} {_words(one)}")
    return "\n".join(f"  {', '.join(changes)}; {needed}" for needed, changes in by_need.items())


def _words(one: Difference) -> str:
    return (
        _cell(one.then) if one.now == "" and one.then == CHANGED else f"was {_cell(one.then)} and is {_cell(one.now)}"
    )


def _table(found: tuple[Difference, ...]) -> str:
    rows = [("argument", "then", "now", "goes on exactly")]
    rows += [(_cell(one.name), _cell(one.then), _cell(one.now), one.exact.value) for one in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _cell(value: object) -> str:
    text = shown(" ".join(str(value).split()))
    return text if len(text) <= CELL else f"{text[: CELL // 2]}...{text[3 - CELL // 2 :]}"
