"""Our lines, and where one goes in a Python file: below docstring and `from __future__`, above all other imports."""

import ast
import re
import warnings
from typing import NamedTuple

AUTO = "import megatron_resume.auto"
CHATLEARN = "from megatron_resume import chatlearn as _resume; _resume.install()"  # one line, to be one patch
_MODULES = {AUTO: "megatron_resume.auto", CHATLEARN: "megatron_resume.chatlearn"}
_BOM = b"\xef\xbb\xbf"
_PHYSICAL_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n|\Z)")  # where Python ends one, unlike bytes.splitlines()


class NoPlace(ValueError):
    """The file cannot take our line; the text says why."""


class Inserted(NamedTuple):
    """A file with our line in it."""

    content: bytes
    offset: int  # bytes before our line
    length: int  # of our line with its end
    after_line: int  # physical lines before it


def parse(content: bytes) -> ast.Module:
    """The module in `content`, in whatever encoding it declares.

    Raises:
        NoPlace: It is no Python that this interpreter reads.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other people's escapes
            return ast.parse(content)
    except SyntaxError as error:
        where = f" (line {error.lineno})" if error.lineno else ""
        raise NoPlace(f"it is no Python that this interpreter reads: {error.msg}{where}") from error
    except (ValueError, RecursionError, MemoryError, LookupError) as error:
        raise NoPlace(f"it is no Python that this interpreter reads: {error or type(error).__name__}") from error


def has_line(tree: ast.Module, line: str) -> bool:
    """Whether importing the module imports what `line` does, by that line or one of the user's."""
    return any(_imports(node, _MODULES[line]) for node in tree.body)


def _imports(node: ast.stmt, module: str) -> bool:
    if isinstance(node, ast.Import):
        return any(alias.name == module for alias in node.names)
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return any(f"{node.module}.{alias.name}" == module for alias in node.names)
    return False


def insert(content: bytes, tree: ast.Module, line: str) -> Inserted:
    """`content`, which parses to `tree`, with our `line`; nothing else in it means anything else afterwards.

    Raises:
        NoPlace: There is no line of its own for it.
    """
    lines = [found for found in _PHYSICAL_LINE.findall(content) if found]
    header = _header(tree)
    after = (tree.body[header - 1].end_lineno or 0) if header else _leading_comments(lines)
    offset = sum(map(len, lines[:after])) or len(_BOM) * content.startswith(_BOM)
    text = line.encode() + _end_of_line(lines, after)
    made = content[:offset] + text + content[offset:]
    if not _only_added(tree, made, line, header):
        raise NoPlace("the line above which our import belongs is not one of its own; put the import there by hand")
    return Inserted(made, offset, len(text), after)


def take_out(content: bytes, offset: int, length: int) -> bytes | None:
    """`content` without one of our lines at `offset`; None where something else stands there."""
    if content[offset : offset + length].rstrip(b"\r\n").decode("latin-1") not in _MODULES:
        return None
    return content[:offset] + content[offset + length :]


def _header(tree: ast.Module) -> int:
    """How many statements must stay first: the docstring, and imports from `__future__`."""
    body = tree.body
    docstring = ast.get_docstring(tree, clean=False) is not None
    header = int(docstring)
    while header < len(body):
        node = body[header]
        if not (isinstance(node, ast.ImportFrom) and node.module == "__future__" and node.level == 0):
            break
        header += 1
    return header


def _leading_comments(lines: list[bytes]) -> int:
    """Lines of the comment a file begins with: licence, encoding, `#!`."""
    texts = [line.removeprefix(_BOM).strip() for line in lines]
    blank = next((number for number, text in enumerate(texts) if text), 0)
    if not texts or not texts[blank].startswith(b"#"):
        return 0
    return next((number for number in range(blank, len(texts)) if not texts[number].startswith(b"#")), len(texts))


def _end_of_line(lines: list[bytes], after: int) -> bytes:
    """As the line above ends, or the first where there is none above."""
    above = lines[max(after - 1, 0)] if lines else b""
    end = above[len(above.rstrip(b"\r\n")) :]
    return end if end in (b"\n", b"\r\n", b"\r") else b"\n"


def _only_added(before: ast.Module, made: bytes, line: str, at: int) -> bool:
    """Whether `made` is the module `before` with our line's statements from number `at` on, and nothing else."""
    try:
        after = parse(made)
    except NoPlace:
        return False
    added = ast.parse(line).body
    expected = ast.Module([*before.body[:at], *added, *before.body[at:]], before.type_ignores)
    return ast.dump(after) == ast.dump(expected)
