"""A machine without torch and Megatron, such as a login node."""

from pathlib import Path

import pytest

import megatron_resume


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An import path with all that is installed here, but neither torch nor Megatron."""
    folder = tmp_path_factory.mktemp("site")
    for entry in Path(pytest.__file__).parents[1].iterdir():
        if not entry.name.startswith(("torch", "megatron", "transformer_engine", "functorch")):
            (folder / entry.name).symlink_to(entry)
    (folder / "megatron_resume").symlink_to(Path(megatron_resume.__file__).parent)
    return str(folder)
