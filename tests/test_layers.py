"""Imports point down (design, layout), torch and Megatron stay where they belong, and nothing is circular."""

import ast
import functools
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = "megatron_resume"
ROOT = Path(__file__).resolve().parents[1] / PACKAGE

# Lowest first. A module imports from layers below its own, or from its own folder.
LAYERS = (
    ("errors",),
    ("plain_yaml",),
    ("crash", "roles", "shown", "sources", "hooks", "installed", "processes", "withheld"),
    ("config", "policy"),
    ("checkpoint",),
    ("data", "resume", "patching"),
    ("watch",),
    ("launch", "adapter"),
    ("auto", "chatlearn", "__init__"),
    ("cli",),
    ("__main__",),
)
LAYER_OF = {part: number for number, layer in enumerate(LAYERS) for part in layer}
HOMES = {  # who may import what, at module level
    "torch": ("adapter", "watch"),
    "megatron": ("adapter",),
    "rich": ("cli",),
}
LAZY = ("cli", "__init__")  # may import our own modules inside functions: the CLI runs without torch
# So may these: what a process needs from its first hook on is no part of what each import of us costs.
AT_FIRST_USE = {
    "megatron_resume.adapter.install": {"megatron_resume.adapter.saving", "megatron_resume.adapter.training"},
}


@dataclass(frozen=True)
class Import:
    """One import statement's target, as an absolute dotted name."""

    module: str  # the importing module
    target: str
    line: int
    when: str  # executed at "import", at a "call", or for "types" only

    def __str__(self) -> str:
        return f"{self.module} line {self.line} imports {self.target}"


def part_of(module: str) -> str:
    """The file or folder of the package that `module` lies in: "config", "adapter", "__init__"."""
    return module.split(".")[1] if "." in module else "__init__"


@functools.cache
def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = [PACKAGE, *path.relative_to(ROOT).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(module: str, text: str) -> Iterator[Import]:
    for node, when in statements(ast.parse(text), "import"):
        for target in targets(module, node):
            yield Import(module, target, node.lineno, when)


def statements(inside: ast.AST, when: str) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    """The import statements below a node, which is executed `when`."""
    if isinstance(inside, ast.FunctionDef | ast.AsyncFunctionDef):
        when = "call"
    elif is_for_types(inside):
        when = "types"
    for node in ast.iter_child_nodes(inside):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, when
        elif not isinstance(node, ast.expr):  # which hold none
            yield from statements(node, when)


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def targets(module: str, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = node.module or ""
    if node.level:
        is_package = modules().get(module, ROOT).name == "__init__.py"
        parents = module.split(".")
        parents = parents[: len(parents) - node.level + is_package]
        base = ".".join([*parents, *([base] if base else [])])
    for alias in node.names:
        name = f"{base}.{alias.name}"
        yield name if name in modules() else base


@functools.cache
def all_imports() -> list[Import]:
    return [found for module, path in modules().items() for found in imports(module, path.read_text())]


def our_imports() -> list[Import]:
    return [found for found in all_imports() if found.target.split(".")[0] == PACKAGE]


def points_down(found: Import) -> bool:
    here, there = part_of(found.module), part_of(found.target)
    return here == there or LAYER_OF[there] < LAYER_OF[here]


def test_every_file_and_folder_has_a_layer() -> None:
    assert {part_of(module) for module in modules()} <= set(LAYER_OF)


def test_imports_point_down() -> None:
    assert [str(found) for found in our_imports() if not points_down(found)] == []


def test_no_import_is_circular() -> None:
    graph: dict[str, set[str]] = {module: set() for module in modules()}
    for found in our_imports():
        if found.when == "import" and found.target != found.module:
            graph[found.module].add(found.target)
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError and names the cycle


def test_our_own_modules_are_imported_at_the_top_of_a_file() -> None:
    late = [found for found in our_imports() if found.when == "call" and part_of(found.module) not in LAZY]
    allowed = {(module, target) for module, targets in AT_FIRST_USE.items() for target in targets}
    assert [str(found) for found in late if (found.module, found.target) not in allowed] == []
    assert allowed <= {(found.module, found.target) for found in late}, "the list is no longer than needed"


@pytest.mark.parametrize("library", HOMES)
def test_heavy_libraries_are_imported_in_their_home_only(library: str) -> None:
    strangers = [
        str(found)
        for found in all_imports()
        if found.target.split(".")[0] == library and part_of(found.module) not in HOMES[library]
    ]
    assert strangers == []


def test_the_package_never_imports_examples_tests_or_benchmarks() -> None:
    outside = ("examples", "tests", "benchmarks", "tools")
    assert [str(found) for found in all_imports() if found.target.split(".")[0] in outside] == []


def test_importing_the_package_imports_neither_torch_nor_megatron() -> None:
    program = "import sys, megatron_resume; print(sorted({'torch', 'megatron'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("module", "text", "target", "when"),
    [
        (f"{PACKAGE}.errors", "from . import config", f"{PACKAGE}.config", "import"),
        (f"{PACKAGE}.cli.run", "from ..config import KEYS", f"{PACKAGE}.config", "import"),
        (f"{PACKAGE}.errors", f"def f():\n    import {PACKAGE}.config", f"{PACKAGE}.config", "call"),
        (
            f"{PACKAGE}.errors",
            "if TYPE_CHECKING:\n    from .config import KEYS",
            f"{PACKAGE}.config",
            "types",
        ),
        (PACKAGE, "from .config import KEYS", f"{PACKAGE}.config", "import"),
        (f"{PACKAGE}.errors", "try:\n    import torch.nn\nexcept ImportError: ...", "torch.nn", "import"),
    ],
)
def test_this_test_sees_every_form_of_import(module: str, text: str, target: str, when: str) -> None:
    assert [(found.target, found.when) for found in imports(module, text)] == [(target, when)]


def test_this_test_sees_an_import_that_points_up() -> None:
    assert not points_down(Import(f"{PACKAGE}.config", f"{PACKAGE}.adapter.start", 1, "import"))
