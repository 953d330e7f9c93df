"""`megatron-resume run SCRIPT ARGS...`: the script cannot tell, except that the hooks are there."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import PROGRAMS
from support import pool as forked
from support.pool import Pool
from support.runs import once
from support.waiting import PATIENCE_S

PLAIN = [sys.executable]
RUN = [sys.executable, "-m", "megatron_resume", "run"]
CONSOLE = [str(Path(sys.executable).with_name("megatron-resume")), "run"]


Call = Callable[..., subprocess.CompletedProcess[str]]


def call(command: list[str], *arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=PATIENCE_S)


@pytest.fixture(scope="session")
def call_forked(torch_pool: Pool) -> Call:
    """As `call`, without the seconds in which torch is imported."""

    def call(command: list[str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        words = command[1:] if command[0] == sys.executable else command
        return forked.run(torch_pool, PROGRAMS / "python.py", *words, *map(str, arguments))

    return call


def script(tmp_path: Path, text: str) -> Path:
    folder = tmp_path / "job"
    folder.mkdir()
    path = folder / "train.py"
    path.write_text(text)
    return path


TELLS_WHAT_IT_SEES = """
from __future__ import annotations
import sys
modules = set(sys.modules)
import dataclasses, gc, inspect, json, pickle, typing
from beside import x


@dataclasses.dataclass
class Point:
    x: int
    near: Point | None = None
    unit: typing.ClassVar[int] = 1


print(json.dumps({
    "names": [__name__, __file__, __doc__, __package__ or None, sys.path[0]],
    "arguments": sys.argv,
    "beside": x,
    "pickled": str(pickle.loads(pickle.dumps(Point(3)))),
    "inspected": [len(dataclasses.fields(Point)), sorted(typing.get_type_hints(Point))],
    "source": inspect.getsource(Point),
    "collects": gc.isenabled(),
    "freezes": gc.get_freeze_count() > 100_000,
    "hooked": "megatron_resume.auto" in modules,
    "printers": sorted({"rich", "yaml"} & modules),
}))
"""
ARGUMENTS = ("a", "-b", "--help", "--", "--json", "run")


@pytest.fixture(scope="module")
def seen(shared_folder: Path) -> dict[str, dict[str, Any]]:
    """What a script sees: under plain Python, and under ours."""
    folder = shared_folder / "seen"

    def look() -> None:
        folder.mkdir()
        path = script(folder, TELLS_WHAT_IT_SEES)
        path.with_name("beside.py").write_text("x = 7\n")
        for name, how in (("plain", PLAIN), ("ours", RUN)):
            done = call(how, path, *ARGUMENTS, cwd=folder)
            assert done.returncode == 0, done
            (folder / name).write_text(done.stdout)

    once(folder, look)
    return {name: json.loads((folder / name).read_text()) for name in ("plain", "ours")}


@pytest.mark.parametrize("what", ["names", "arguments", "beside", "pickled", "inspected", "source", "collects"])
def test_the_script_sees_what_python_would_show_it(seen: dict[str, dict[str, Any]], what: str) -> None:
    assert seen["ours"][what] == seen["plain"][what]
    assert seen["ours"][what]


def test_all_arguments_go_to_the_script_even_help(seen: dict[str, dict[str, Any]]) -> None:
    assert tuple(seen["ours"]["arguments"][1:]) == ARGUMENTS


def test_a_module_beside_the_script_is_found(seen: dict[str, dict[str, Any]]) -> None:
    assert seen["ours"]["beside"] == 7


def test_the_hooks_are_installed_before_the_first_line(seen: dict[str, dict[str, Any]]) -> None:
    assert (seen["plain"]["hooked"], seen["ours"]["hooked"]) == (False, True)


def test_garbage_is_collected_as_ever_but_not_looked_for_in_torch(seen: dict[str, dict[str, Any]]) -> None:
    assert (seen["plain"]["collects"], seen["plain"]["freezes"]) == (True, False)
    assert (seen["ours"]["collects"], seen["ours"]["freezes"]) == (True, True)


def test_a_rank_does_not_import_what_only_prints(seen: dict[str, dict[str, Any]]) -> None:
    assert seen["ours"]["printers"] == []


def test_what_the_script_defines_can_be_pickled_and_inspected(seen: dict[str, dict[str, Any]]) -> None:
    assert seen["ours"]["pickled"] == "Point(x=3, near=None)"
    assert seen["ours"]["inspected"] == [2, ["near", "unit", "x"]]
    assert seen["ours"]["source"].count("Point") == 2


def test_the_exit_code_of_the_script_is_ours(call_forked: Call, tmp_path: Path) -> None:
    assert call_forked(RUN, script(tmp_path, "import sys; sys.exit(16)\n")).returncode == 16


def test_an_exception_of_the_script_keeps_its_traceback(call_forked: Call, tmp_path: Path) -> None:
    done = call_forked(RUN, script(tmp_path, "def f():\n    raise KeyError('lost')\nf()\n"))
    assert done.returncode == 1
    assert 'train.py", line 2, in f' in done.stderr
    assert "KeyError: 'lost'" in done.stderr


def test_a_named_error_of_ours_ends_in_its_message_and_exit_code(call_forked: Call, tmp_path: Path) -> None:
    text = "from megatron_resume.errors import RejoinError\nraise RejoinError('a newer attempt has begun')\n"
    done = call_forked(RUN, script(tmp_path, text))
    assert done.returncode == 203
    assert done.stderr == "megatron-resume: a newer attempt has begun\n"


@pytest.mark.parametrize("command", [RUN, CONSOLE], ids=["module", "console script"])
def test_a_spawned_helper_does_not_execute_an_unguarded_script_again(
    call_forked: Call, command: list[str], tmp_path: Path
) -> None:
    text = (
        "import multiprocessing, os\n"
        "print('first line', flush=True)\n"
        "helper = multiprocessing.get_context('spawn').Process(target=os.getpid)\n"
        "helper.start(); helper.join(); print(helper.exitcode)\n"
    )
    done = call_forked(command, script(tmp_path, text))
    assert done.stdout == "first line\n0\n", done.stderr


@pytest.mark.parametrize("command", [RUN, CONSOLE], ids=["module", "console script"])
def test_a_spawned_helper_of_a_guarded_script_gets_what_the_script_defines(
    call_forked: Call, command: list[str], tmp_path: Path
) -> None:
    text = (
        "import multiprocessing\n"
        "print('imported as', __name__, flush=True)\n"
        "def work(): print('works', flush=True)\n"
        "if __name__ == '__main__':\n"
        "    helper = multiprocessing.get_context('spawn').Process(target=work)\n"
        "    helper.start(); helper.join(); print(helper.exitcode)\n"
    )
    path = script(tmp_path, text)
    ours = call_forked(command, path).stdout
    assert ours == call(PLAIN, path).stdout
    assert "works" in ours


def test_it_works_under_torchrun(torch_pool: Pool, tmp_path: Path) -> None:
    """Forked; with processes of their own, torchrun runs the same in launch/test_parent.py."""
    path = script(tmp_path, "import os, sys; print(f'rank {os.environ[\"RANK\"]} {sys.argv[1:]}')\n")
    words = ["--standalone", "--nproc-per-node", "1", "-m", "megatron_resume", "run", str(path), "--lr", "1"]
    done = forked.run(torch_pool, PROGRAMS / "forked_torchrun.py", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "rank 0 ['--lr', '1']\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no SCRIPT given; type `megatron-resume run SCRIPT ARGS...`"),
        (["--nproc", "2"], "found '--nproc' where SCRIPT is due"),
        (["absent.py"], "the script absent.py does not exist; type the path"),
        (["."], ". is a folder; type the path of the Python file in it"),
    ],
)
def test_a_missing_script_exits_78_and_says_what_to_type(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = call(RUN, *arguments, cwd=tmp_path)
    assert done.returncode == 78
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_help_before_the_script_explains_run() -> None:
    done = call(RUN, "--help")
    assert done.returncode == 0
    assert "SCRIPT" in done.stdout


def test_without_torch_the_import_line_says_what_to_install(bare: str) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import megatron_resume.auto"],
        env={"PYTHONPATH": bare},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (78, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"megatron_resume: ERROR: torch is not installed for {sys.executable}")
    assert "pip install torch" in line
