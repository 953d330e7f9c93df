"""What the documentation tells people to type."""

import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from . import ROOT

PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", "docker/*.md", "patches/*.md", "examples/**/*.md")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"  # which tells what was, too
)
_FENCED = re.compile(r"^```(?:sh|bash|console)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`([^`\n]+)`")
_OPTIONAL = re.compile(r"\[([^\]]*)\]")
OURS = "megatron-resume"


class Command(NamedTuple):
    """One command on a page: without its comment, and on one line."""

    page: str
    line: str

    @property
    def words(self) -> list[str]:
        """Without the dots that stand for arguments of a script."""
        return [word for word in shlex.split(self.line) if word != "..."]


def blocks(page: str) -> Iterator[list[str]]:
    """The commands of each fenced block, in order."""
    for block in _FENCED.findall((ROOT / page).read_text()):
        joined = re.sub(r"\\\n\s*", "", block)
        lines = (re.sub(r"(^|\s+)# .*", "", line) for line in joined.splitlines())
        yield [line for line in lines if line]


def commands(*pages: str) -> list[Command]:
    return [Command(page, line) for page in pages or PAGES for block in blocks(page) for line in block]


def mentioned() -> list[Command]:
    """Commands that stand within a sentence."""
    begins = (f"{OURS} ", "make ", "pip ", "python ", "torchrun ", "examples/")
    return [Command(page, code) for page in PAGES for code in _CODE.findall(_prose(page)) if code.startswith(begins)]


def flags() -> set[str]:
    """Each `--flag` that stands in code."""
    texts = [command.line for command in commands()]
    texts += [code for page in PAGES for code in _CODE.findall(_prose(page))]
    return {flag for text in texts for flag in re.findall(r"(?<![\w-])--(?:\[no-\])?[a-z][\w-]*\w(?![\w-])", text)}


def files() -> set[str]:
    """Each file of this repository that is named."""
    folders = "|".join(path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] not in "._")
    named = re.compile(rf"(?<![\w/<>-])(?:\.\.\./)?((?:{folders})/[\w./-]*\w)")
    return {name for page in PAGES for name in named.findall((ROOT / page).read_text())}


def ways(line: str) -> list[str]:
    """A line with `[--json]`: without what is in brackets, and with it."""
    return list(dict.fromkeys((_OPTIONAL.sub("", line), _OPTIONAL.sub(r"\1", line))))


def _prose(page: str) -> str:
    return re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
