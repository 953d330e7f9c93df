"""What is installed is found without importing it."""

import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from megatron_resume.cli.environment import look


def script(tmp_path: Path, text: str = "") -> str:
    path = tmp_path / "train.py"
    path.write_text(text)
    return str(path)


def checkout(folder: Path, version: tuple[int, int, int]) -> None:
    (folder / "megatron" / "core").mkdir(parents=True)
    (folder / "megatron" / "training").mkdir()
    lines = [f"{name} = {number}" for name, number in zip(("MAJOR", "MINOR", "PATCH"), version, strict=True)]
    (folder / "megatron" / "core" / "package_info.py").write_text("\n".join(lines))


def test_a_source_checkout_beside_the_script_is_the_megatron_of_the_job(tmp_path: Path) -> None:
    checkout(tmp_path, (0, 12, 1))
    env = look([script(tmp_path)])
    assert (env.megatron_core, env.megatron_training) == ("0.12.1", True)
    assert env.megatron_path == str(tmp_path / "megatron")


def test_a_folder_called_megatron_beside_the_script_does_not_hide_a_namespace_package(tmp_path: Path) -> None:
    (tmp_path / "megatron").mkdir()
    assert look([script(tmp_path)]).megatron_core == look().megatron_core


def test_a_package_called_megatron_beside_the_script_shadows_the_real_one(tmp_path: Path) -> None:
    (tmp_path / "megatron").mkdir()
    (tmp_path / "megatron" / "__init__.py").touch()
    env = look([script(tmp_path)])
    assert (env.megatron_core, env.megatron_path) == (None, str(tmp_path / "megatron"))


def test_a_file_called_megatron_beside_the_script_shadows_the_real_one(tmp_path: Path) -> None:
    (tmp_path / "megatron.py").touch()
    env = look([script(tmp_path)])
    assert (env.megatron_core, env.megatron_path) == (None, str(tmp_path / "megatron.py"))


@pytest.mark.parametrize(
    ("files", "usable"),
    [
        (["Makefile"], True),
        (["helpers_cpp" + EXTENSION_SUFFIXES[0]], True),
        (["helpers.cpp"], False),
        (["helpers_cpp.cpython-27-of-another-python.so"], False),
    ],
)
def test_the_index_builder_is_there_if_it_is_compiled_or_can_be(tmp_path: Path, files: list[str], usable: bool) -> None:
    checkout(tmp_path, (0, 19, 2))
    datasets = tmp_path / "megatron" / "core" / "datasets"
    datasets.mkdir()
    for name in files:
        (datasets / name).touch()
    assert look([script(tmp_path)]).has_index_builder is usable


def test_the_wheel_of_the_tests_has_its_index_builder() -> None:
    assert look().has_index_builder


def test_an_apex_is_nvidias_if_it_has_optimizers(tmp_path: Path) -> None:
    (tmp_path / "apex").mkdir()
    assert not look([script(tmp_path)]).apex_is_nvidias
    (tmp_path / "apex" / "optimizers").mkdir()
    assert look([script(tmp_path)]).apex_is_nvidias


@pytest.mark.parametrize(
    ("text", "guarded"),
    [
        ("import os\ndef main(): ...\nmain()\n", False),
        ("def main(): ...\nif __name__ == '__main__':\n    main()\n", True),
        ("import sys\nsys.path.append('x')\nif '__main__' == __name__:\n    print()\n", True),
        ("result = main()\n", False),
    ],
)
def test_a_script_is_guarded_if_it_tests_its_name_at_the_top_level(text: str, guarded: bool, tmp_path: Path) -> None:
    assert look([script(tmp_path, text)]).script_is_guarded is guarded


def test_a_script_that_does_not_exist_is_no_traceback() -> None:
    assert look(["/no/such/script.py", "--bf16"]).arguments == ("--bf16",)


def test_looking_imports_neither_torch_nor_megatron() -> None:
    program = "import sys; from megatron_resume.cli.environment import look; look();"
    program += "print(sorted({'torch', 'megatron', 'apex', 'transformer_engine'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
