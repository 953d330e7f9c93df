"""`patch` as a command; what it does is tested in tests/patching."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_resume.cli import main

SCRIPT = '"""d"""\n\nfrom megatron.training import pretrain\n\npretrain()\n'


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "pretrain_gpt.py").write_text(SCRIPT)
    return tmp_path


def test_it_needs_neither_torch_nor_megatron(bare: str, tree: Path) -> None:
    command = [sys.executable, "-S", "-m", "megatron_resume", "patch", "apply", str(tree)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": bare})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "pretrain_gpt.py: patched now, below line 1\n"


@pytest.mark.parametrize("tool", [["patch", "-p1"], ["git", "apply", "-p1", "--unidiff-zero"]], ids=["patch", "git"])
def test_the_diff_does_what_apply_does(tree: Path, tool: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["patch", "check", str(tree), "--diff"]) == 78
    diff = capsys.readouterr().out
    assert main(["patch", "apply", str(tree)]) == 0
    applied = (tree / "pretrain_gpt.py").read_bytes()
    assert main(["patch", "revert", str(tree)]) == 0
    subprocess.run(tool, cwd=tree, input=diff, text=True, check=True, capture_output=True)
    assert (tree / "pretrain_gpt.py").read_bytes() == applied
    capsys.readouterr()
    assert main(["patch", "check", str(tree), "--diff"]) == 0
    assert capsys.readouterr().out == ""
