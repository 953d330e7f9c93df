"""A start of a wheel of Megatron, which holds its index builder compiled and cannot compile it."""

from pathlib import Path

import pytest

from support.runs import Server

SCRIPT = """
import sys
from megatron.core.datasets.utils import compile_helpers
if sys.argv[1] == "with us":
    import megatron_resume.auto
compile_helpers()
import megatron.core.datasets.helpers_cpp
print("goes on")
"""


@pytest.mark.parametrize(("how", "code"), [("with us", 0), ("alone", 1)])
def test_a_wheel_starts_with_us_where_it_ends_alone(server: Server, tmp_path: Path, how: str, code: int) -> None:
    script, log = tmp_path / "starts.py", tmp_path / "log.txt"
    script.write_text(SCRIPT)
    ended = server.run(name="starts", script=str(script), argv=[how], log=str(log), num_ranks=1)
    assert (ended["code"], "goes on" in log.read_text()) == (code, code == 0), log.read_text()
