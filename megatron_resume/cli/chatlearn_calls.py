"""Whether the ChatLearn that is here has the calls that ours answer, as its text says: nothing of it is imported."""

import ast
from collections.abc import Iterable
from pathlib import Path

from megatron_resume.hooks import Hook


def problem(package: Path, hook: Hook) -> str:
    """Why `hook` cannot be installed on the ChatLearn in the folder `package`; "" where it can."""
    file = package.joinpath(*hook.module.split(".")[1:]).with_suffix(".py")
    try:
        body = ast.parse(file.read_bytes()).body
    except (OSError, ValueError, SyntaxError, RecursionError) as error:
        return f"{file} cannot be read: {error}"
    found = _find(body, hook.function.split("."))
    if not isinstance(found, ast.FunctionDef):
        return f"there is no such function in {file}"
    if found.decorator_list:
        return f"it is decorated in {file}"
    arguments = found.args
    known = {one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
    missing = [name for name in hook.needs if name not in known]
    return f"it has no parameter {', '.join(missing)} in {file}" if missing else ""


def _find(body: Iterable[ast.stmt], names: list[str]) -> ast.stmt | None:
    """The class or function that these names lead to, from the outermost on."""
    kinds = (ast.ClassDef, ast.FunctionDef)
    found = [node for node in body if isinstance(node, kinds) and node.name == names[0]]
    if not found or len(names) == 1:
        return found[-1] if found else None
    return _find(found[-1].body, names[1:])
