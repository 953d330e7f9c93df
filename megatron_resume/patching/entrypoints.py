"""Which files of a source tree start a training with Megatron, seen from their structure and not from their names.

| kind | structure | in |
|---|---|---|
| pretrain | imports `pretrain` from megatron.training, and calls it | Megatron-LM's pretrain_*.py, train_rl.py |
| trainer | a class on ChatLearn's Megatron module that trains, or on such a class | ChatLearn's *_trainer.py |
| engine | imports such a trainer and chatlearn, and calls `learn()` | ChatLearn's entry/train_*.py |

ChatLearn's trainers live in other processes (Ray actors) than its engine, so each has the line of its own.
"""

import ast
import fnmatch
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import NamedTuple

NAMES = ("pretrain_*.py", "train_rl.py")  # what Megatron-LM calls its entrypoints
MEGATRON_MODULES = ("MegatronModule", "RLHFMegatronModule")  # ChatLearn's, of 1.x and 0.x
TRAINING_METHODS = ("setup_model_and_optimizer", "train_step", "_train_step")

Dotted = tuple[str, ...]


class Imported(NamedTuple):
    """A name that a module took from another."""

    module: Dotted
    name: str


def may_be_one(content: bytes) -> bool:
    """Whether a file holds words without which none is an entrypoint; parsing all files would take seconds."""
    return (b"megatron" in content and b"pretrain" in content) or b"chatlearn" in content or b"Trainer" in content


def is_named_like_one(path: PurePosixPath) -> bool:
    return any(fnmatch.fnmatchcase(path.name, pattern) for pattern in NAMES)


def uses_megatron(tree: ast.Module) -> bool:
    """Whether a module imports anything of Megatron."""
    return any(name.split(".")[0] == "megatron" for name in _modules(tree))


def entrypoints(trees: Mapping[PurePosixPath, ast.Module]) -> dict[PurePosixPath, str]:
    """The kind of each module of `trees` (by its path below the root) that is an entrypoint."""
    found = {path: "pretrain" for path, tree in trees.items() if calls_pretrain(tree)}
    imported = {path: dict(_imported(path, tree)) for path, tree in trees.items()}
    trainers = _trainers(trees, imported)
    for path, tree in trees.items():
        if path in trainers:
            found.setdefault(path, "trainer")
        elif _starts_engine(tree, imported[path].values(), trainers):
            found.setdefault(path, "engine")
    return found


def calls_pretrain(tree: ast.Module) -> bool:
    """Whether a module calls Megatron's `pretrain`, under whatever name it imported it."""
    called: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                called |= _names_of_pretrain(f"{node.module}.{alias.name}", alias.asname or alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                called |= _names_of_pretrain(alias.name, alias.asname or alias.name)
    return (
        any(isinstance(node, ast.Call) and ast.unparse(node.func) in called for node in ast.walk(tree))
        if called
        else False
    )


def _names_of_pretrain(imported: str, bound: str) -> set[str]:
    """How a module that bound `imported` to `bound` writes `pretrain`."""
    if imported in ("megatron.training.pretrain", "megatron.training.training.pretrain"):
        return {bound}
    if imported == "megatron.training":
        return {f"{bound}.pretrain", f"{bound}.training.pretrain"}
    if imported == "megatron.training.training":
        return {f"{bound}.pretrain", "megatron.training.pretrain"}
    return set()


def _modules(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""


def _imported(path: PurePosixPath, tree: ast.Module) -> Iterator[tuple[str, Imported]]:
    """Each name that a module imports from another, and from where."""
    folder = path.parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            for alias in node.names:
                yield alias.asname or alias.name, Imported(module, alias.name)


def _trainers(
    trees: Mapping[PurePosixPath, ast.Module], imported: Mapping[PurePosixPath, Mapping[str, Imported]]
) -> dict[PurePosixPath, set[str]]:
    """The trainer classes of each module, those on classes of other modules included."""
    found: dict[PurePosixPath, set[str]] = {}
    classes = [(path, node) for path, tree in trees.items() for node in tree.body if isinstance(node, ast.ClassDef)]
    grown = True
    while grown:
        grown = False
        for path, node in classes:
            if node.name not in found.get(path, ()) and _is_trainer(node, path, imported[path], found):
                found.setdefault(path, set()).add(node.name)
                grown = True
    return found


def _is_trainer(
    node: ast.ClassDef,
    path: PurePosixPath,
    imported: Mapping[str, Imported],
    trainers: Mapping[PurePosixPath, set[str]],
) -> bool:
    trains = any(isinstance(inner, ast.FunctionDef) and inner.name in TRAINING_METHODS for inner in node.body)
    for base in node.bases:
        if not isinstance(base, ast.Name):
            continue
        if base.id in trainers.get(path, ()):
            return True
        source = imported.get(base.id)
        if source is None:
            continue
        if source.module[:1] == ("chatlearn",) and source.name in MEGATRON_MODULES and trains:
            return True
        if _is_of(source, trainers):
            return True
    return False


def _is_of(source: Imported, trainers: Mapping[PurePosixPath, set[str]]) -> bool:
    """Whether a name was imported from a module that defines a trainer of this name, or from a package around it."""
    return any(source.name in names and _fits(source.module, path) for path, names in trainers.items())


def _fits(module: Dotted, path: PurePosixPath) -> bool:
    """Whether `module` may be the file `path` or a package that holds it; what is on sys.path, nobody knows here."""
    parts = path.with_suffix("").parts
    size = len(module)
    return any(parts[start : start + size] == module for start in range(len(parts) - size + 1)) if module else False


def _starts_engine(tree: ast.Module, imported: Iterable[Imported], trainers: Mapping[PurePosixPath, set[str]]) -> bool:
    if not any(name.split(".")[0] == "chatlearn" for name in _modules(tree)):
        return False
    learns = any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "learn"
        for node in ast.walk(tree)
    )
    return learns and any(_is_of(source, trainers) for source in imported)
