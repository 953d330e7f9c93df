"""The user's training script, as a file: its text, and whether helpers may import it again."""

import ast
from pathlib import Path

from megatron_resume.errors import ConfigError


def read(script: str) -> bytes:
    """The source of `script`.

    Raises:
        ConfigError: There is no such file, and what to type instead.
    """
    path = Path(script)
    try:
        return path.read_bytes()
    except IsADirectoryError:
        needed = f"type the path of the Python file in it: `megatron-resume run {path / 'FILE.py'} ARGS...`"
        raise ConfigError(f"{script} is a folder; {needed}") from None
    except FileNotFoundError:
        needed = f"type the path from here ({Path.cwd()}), or an absolute one"
        raise ConfigError(f"the script {script} does not exist; {needed}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"the script {script!r} cannot be read ({error}); check its path") from None


def is_guarded(source: bytes) -> bool:
    """Whether the script tests `__name__` at its top level, so that importing it does not run it."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError):
        return False
    tests = [node for statement in body if isinstance(statement, ast.If) for node in ast.walk(statement.test)]
    return any(isinstance(node, ast.Name) and node.id == "__name__" for node in tests)
