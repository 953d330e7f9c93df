"""The index builder of Megatron's datasets is left alone where it need not be compiled and cannot be."""

import importlib.util
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import FunctionType

import pytest

from megatron_resume.adapter.index_builder import wrap_compile_helpers

MADE = "helpers_cpp" + EXTENSION_SUFFIXES[0]
OF_ANOTHER_PYTHON = "helpers_cpp.cpython-27-of-another-python.so"
UTILS = """
from pathlib import Path
def compile_helpers():
    Path(__file__).with_name("was_compiled").touch()
"""


def compile_helpers_of(folder: Path) -> FunctionType:
    (folder / "utils.py").write_text(UTILS)
    spec = importlib.util.spec_from_file_location("utils_of_datasets", folder / "utils.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: FunctionType = module.compile_helpers
    return found


@pytest.mark.parametrize(
    ("files", "is_compiled"),
    [
        ([MADE], False),
        ([MADE, "Makefile"], True),
        (["Makefile"], True),
        ([], True),  # Megatron says what is wrong
        ([OF_ANOTHER_PYTHON], True),
    ],
)
def test_megatrons_own_function_runs_but_where_its_work_is_done_and_cannot_be_done_again(
    tmp_path: Path, files: list[str], is_compiled: bool
) -> None:
    for name in files:
        (tmp_path / name).touch()
    wrap_compile_helpers(compile_helpers_of(tmp_path))()
    assert (tmp_path / "was_compiled").exists() is is_compiled
