"""`docs/messages.md` explains messages that exist, and every one that ends a start or a save."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "megatron_resume"
KEYS = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs" / "messages.md").read_text(), flags=re.MULTILINE)
ERRORS = {"ConfigError", "DamagedError", "MismatchError", "HeldError", "RejoinError", "UncommittedError", "PromptError"}
# These say all there is to say: what is called wrongly, by whom, and what to call.
SELF_EXPLAINING = {"api.py", "tracked.py", "arrays.py", "events.py", "removal.py", "digests.py", "ending.py"}
SELF_EXPLAINING |= {"given.py", "numbers.py", "batches.py", "episode_sampler.py"}
SELF_EXPLAINING |= {"chatlearn.py", "imported.py", "plain_pickle.py"}  # of a command that is typed once


def text_of(node: ast.expr) -> str:
    """The text of a message, with `…` for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return "…"


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


def texts(*folders: str) -> Iterator[str]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if not folders or path.parent.name in folders:
            for node in nodes(path):
                if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp):
                    yield text_of(node)


@functools.cache
def pattern(key: str) -> re.Pattern[str]:
    """Finds it in one text, or in several that are joined by NUL."""
    return re.compile("[^\0]*".join(re.escape(part.strip()) for part in key.split("…")))


def explains(key: str, text: str) -> bool:
    return pattern(key).search(text) is not None


def test_every_message_that_is_explained_exists() -> None:
    said = "\0".join(re.sub("%s|%d", "…", text.replace("\0", "…")) for text in texts())
    keys = [key.replace("%s", "…") for key in KEYS]
    assert KEYS and [key for key in keys if not explains(key, said)] == []


def raised() -> Iterator[tuple[str, str]]:
    """Where an error is raised in what runs with Megatron, and its text."""
    for folder in ("adapter", "checkpoint", "data", "resume"):
        for path in sorted((PACKAGE / folder).glob("*.py")):
            for node in nodes(path):
                call = node.exc if isinstance(node, ast.Raise) else None
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ERRORS:
                    text = text_of(call.args[0])
                    if len(re.findall("[a-z]", text)) > 4:  # else it is filled in with what another function says
                        yield path.name, text


def test_every_message_that_ends_a_start_is_explained() -> None:
    found = [(file, text) for file, text in raised() if file not in SELF_EXPLAINING]
    assert len(found) > 50
    assert [one for one in found if not any(explains(key, one[1]) for key in KEYS)] == []
