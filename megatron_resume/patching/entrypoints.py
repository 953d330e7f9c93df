"""Which files of a source tree need a line of ours, seen from their structure and not from their names.

| kind | structure | in |
|---|---|---|
| pretrain | imports `pretrain` from megatron.training, and calls it | Megatron-LM's pretrain_*.py, train_rl.py |
| chatlearn | the package chatlearn, which offers MegatronModule and an engine | ChatLearn's chatlearn/__init__.py |
| engine | imports chatlearn, and calls `learn()` | ChatLearn's entry/train_*.py; never patched itself |

ChatLearn's engine runs in a driver and its trainers in actors (Ray), which do not import the entry script. What all of
them import is ChatLearn itself, so its package is patched, and an engine without its package in the tree is refused.
"""

import ast
import fnmatch
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

PRETRAIN, CHATLEARN, ENGINE = "pretrain", "chatlearn", "engine"
NAMES = ("pretrain_*.py", "train_rl.py")  # what Megatron-LM calls its entrypoints


def may_be_one(content: bytes) -> bool:
    """Whether a file holds words without which none is an entrypoint; parsing all files would take seconds."""
    return (b"megatron" in content and b"pretrain" in content) or b"chatlearn" in content


def is_named_like_one(path: PurePosixPath) -> bool:
    return any(fnmatch.fnmatchcase(path.name, pattern) for pattern in NAMES)


def uses_megatron(tree: ast.Module) -> bool:
    """Whether a module imports anything of Megatron."""
    return any(name.split(".")[0] == "megatron" for name in _imports(tree))


def entrypoints(trees: Mapping[PurePosixPath, ast.Module]) -> dict[PurePosixPath, str]:
    """The kind of each module of `trees` (by its path below the root) that has one."""
    found = {path: _kind(path, tree) for path, tree in trees.items()}
    return {path: kind for path, kind in found.items() if kind}


def _kind(path: PurePosixPath, tree: ast.Module) -> str | None:
    if _calls_pretrain(tree):
        return PRETRAIN
    if path.parts[-2:] == ("chatlearn", "__init__.py") and _offers_engine(tree):
        return CHATLEARN
    return ENGINE if _starts_engine(tree) else None


def _calls_pretrain(tree: ast.Module) -> bool:
    """Whether a module calls Megatron's `pretrain`, under whatever name it imported it."""
    called: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                called |= _names_of_pretrain(alias.name, alias.asname or alias.name)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                called |= _names_of_pretrain(f"{node.module}.{alias.name}", alias.asname or alias.name)
    return bool(called) and any(isinstance(n, ast.Call) and ast.unparse(n.func) in called for n in ast.walk(tree))


def _names_of_pretrain(imported: str, bound: str) -> set[str]:
    """How a module that bound `imported` to `bound` writes `pretrain`."""
    if imported in ("megatron.training.pretrain", "megatron.training.training.pretrain"):
        return {bound}
    if imported == "megatron.training":
        return {f"{bound}.pretrain", f"{bound}.training.pretrain"}
    if imported == "megatron.training.training":
        return {f"{bound}.pretrain", "megatron.training.pretrain"}
    return set()


def _offers_engine(tree: ast.Module) -> bool:
    names = {name.rpartition(".")[2] for name in _imports(tree)}
    return "MegatronModule" in names and any(name.endswith("Engine") for name in names)


def _starts_engine(tree: ast.Module) -> bool:
    if not any(name.split(".")[0] == "chatlearn" for name in _imports(tree)):
        return False
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return any(isinstance(called, ast.Attribute) and called.attr == "learn" for called in calls)


def _imports(tree: ast.Module) -> Iterator[str]:
    """The dotted name of everything that a module imports; relative ones without what they are relative to."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)
