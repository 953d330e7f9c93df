"""What refuses a start stands in torchrun's summary, where people look first."""

import subprocess
import sys
from pathlib import Path

import pytest

from megatron_resume.adapter import error_file
from megatron_resume.errors import ConfigError, RejoinError

REFUSED = """
from megatron_resume.adapter.ending import truthful_end
from megatron_resume.errors import ConfigError
with truthful_end():
    raise ConfigError("start refused: the folder is on the moon; name another")
"""


def test_torchruns_summary_shows_the_sentence(tmp_path: Path) -> None:
    script = tmp_path / "refused.py"
    script.write_text(REFUSED)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    summary = done.stderr.partition("Root Cause")[2]
    assert "ConfigError (exit code 78): start refused: the folder is on the moon; name another" in summary
    assert "error_file: <N/A>" not in summary


@pytest.mark.parametrize("where", ["", "gone/error.json"])
def test_without_such_a_file_or_its_folder_nothing_is_written(tmp_path: Path, where: str) -> None:
    error_file.write(ConfigError("x"), {error_file.VARIABLE: str(tmp_path / where) if where else ""})
    error_file.write(RejoinError("x"), {})
    assert list(tmp_path.iterdir()) == []
