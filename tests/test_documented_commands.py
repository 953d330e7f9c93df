"""Each command of the documentation is run by a test that is named here, or it is said why it cannot be."""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron_resume.cli.app import parser
from megatron_resume.config import add_flags
from support import PROGRAMS, documented, upstream
from support.chatlearn_files import ChatLearnJob
from support.documented import OURS, PAGES, ROOT, Command, commands, mentioned, ways
from support.job_on_disk import JobOnDisk
from support.pool import MEGATRON, PLAIN, TORCH, Pool, run
from support.programs.forked_launch import COMM

HERE = "run below, block by block"
RENDER = f"{OURS} render --engine"
RUN_BY = {
    "make demo": "tests/test_documented_commands.py::test_make_demo_ends_with_runs_that_are_identical",
    "pip install .": "tests/docker/test_install.py::test_pip_installs_a_clone_as_the_readme_types_it",
    'pip install ".[megatron]"': "tests/docker/test_install.py::test_pip_installs_a_clone_as_the_readme_types_it",
    f"{OURS} doctor [--json] [SCRIPT ARGS...]": "tests/cli/test_doctor.py"
    "::test_the_arguments_of_the_script_are_examined",
    "PYTHON=/path/to/venv/bin/python docker/install.sh": "tests/docker/test_install.py"
    "::test_the_real_packages_go_beside_a_real_torch_and_doctor_is_content",
    "--data-checkpoint-path NEW": "tests/real_megatron/test_chatlearn_import.py"
    "::test_it_goes_on_at_chatlearns_next_episode_and_samples",
}
RUN_BY_BEGIN = {  # of what names ranks or machines that no test has
    "torchrun --nproc-per-node 8 -m megatron_resume run pretrain": "tests/real_megatron/test_stock_pretrain.py"
    "::test_an_unedited_pretraining_script_resumes_exactly",
    "torchrun --nproc-per-node 8 examples/minimal.py": "tests/real_megatron/test_minimal.py"
    "::test_killed_in_mid_episode_the_same_command_goes_on_exactly",
    f"{OURS} launch --nproc-per-node 8": "tests/launch/test_parent.py"
    "::test_after_the_death_of_a_rank_the_job_finishes_and_what_it_left_behind_is_ended_meanwhile",
    f"{OURS} launch --engine nvrx": "tests/launch/test_nvrx.py::test_after_the_death_of_a_rank_the_job_finishes",
}
NOT_RUN = {  # what can be checked of these is checked below: arguments of ours, and the files that they name
    "make test": "these are the tests",
    'pip install ".[megatron,gpu]"': "Transformer Engine is built where CUDA is",
    "pip install matplotlib": "it is in .venv; that the page comes without it: tests/cli/test_report.py",
    "docker build": "there is no docker here; what the build runs is: tests/docker/test_install.py",
    "docker run": "there is no docker here",
    "kubectl create": "there is no cluster here; the manifest is checked: tests/launch/test_kubernetes.py",
    "cd /opt/ChatLearn": "no tree of ChatLearn may be kept here; the digests are read: tests/patching/test_patches.py",
    "sha256sum -c .../patches/chatlearn": "the same",
    "patch -p1 < .../patches/chatlearn": "the same",
}
FLAGS_OF_OTHERS = {
    "docker": "build-arg cap-add device gpus ipc network restart rm shm-size ulimit user",
    "sbatch": "signal",
    "AIMaster": "fault-tolerant-policy job-hang-interval max-num-of-job-restart max-num-of-same-error",
    "ft_launcher": "term-timeout workers-stop-timeout ft-checkpoint-iteration-file ft-max-no-progress-cycles",
    "torchrun": "max-restarts shutdown-timeout nproc-per-node rdzv-id",
    "patches/make_patches.py": "add",
    "tests/gpu.py": "on-cpu",
    "Megatron of other releases, and its examples": "use-custom-fsdp dataloader-save",
}
MAKEFILE = (ROOT / "Makefile").read_text()
ALL = [*commands(), *mentioned()]


def is_ours(command: Command) -> bool:
    return OURS in command.words[:-1] or "megatron_resume" in command.words[:-1]


def of_ours(line: str) -> list[str]:
    """What our command line gets."""
    words = Command("", line).words
    last = max(at for at, word in enumerate(words) if word in (OURS, "megatron_resume"))
    return words[last + 1 :]


def is_here(line: str) -> bool:
    """Whether the line does what it says in a moment, on folders that a test can make."""
    elsewhere = {*RUN_BY, *RUN_BY_BEGIN, *NOT_RUN}
    known = line.startswith((f"{OURS} ", "cd /opt/Megatron-LM", "patch -p1 < .../patches/core_"))
    return known and not line.startswith(tuple(elsewhere))


@pytest.mark.parametrize("command", [*commands(), *(c for c in mentioned() if c.line.startswith("pip "))])
def test_a_command_that_is_shown_is_run_by_a_test_or_has_a_reason_why_not(command: Command) -> None:
    if is_here(command.line) or command.line.startswith(tuple(NOT_RUN)):
        return
    begins = next((test for begin, test in RUN_BY_BEGIN.items() if command.line.startswith(begin)), None)
    test = RUN_BY.get(command.line, begins)
    assert test, f"say in {Path(__file__).name} which test runs: {command.line}"
    file, _, name = test.partition("::")
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("begin", [*RUN_BY, *RUN_BY_BEGIN, *NOT_RUN])
def test_what_is_listed_here_is_shown_somewhere(begin: str) -> None:
    assert any(command.line.startswith(begin) for command in ALL)


@pytest.mark.parametrize("command", [command for command in ALL if is_ours(command)])
def test_our_command_line_takes_what_is_shown(command: Command) -> None:
    for line in ways(command.line):
        words = of_ours(line)
        if words[0] == "run":  # whose words are the script's, which knows our flags
            script_takes(words[2:])
        elif words[0] in ("launch", "render") and "--" not in words:
            continue  # named in a sentence, without its script
        elif len(words) > 1 or words[0] == "doctor":
            args = parser().parse_args(words)
            assert callable(args.call)
            script_takes(getattr(args, "command", [])[2:])


def script_takes(words: list[str]) -> None:
    """A script takes our flags with values that they can have; what is Megatron's, it takes beside them."""
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    add_flags(flags).parse_known_args(words)


@pytest.mark.parametrize("command", [command for command in ALL if command.line.startswith("make ")])
def test_make_has_the_target_that_is_named(command: Command) -> None:
    assert re.search(rf"^{command.words[1]}:.*##", MAKEFILE, flags=re.MULTILINE)


@pytest.mark.parametrize("name", sorted(documented.files()))
def test_a_file_that_is_named_is_there(name: str) -> None:
    assert (ROOT / name).exists() or name == "benchmarks/results.json"  # which `make bench` writes


def test_every_extra_that_pip_is_asked_for_is_one() -> None:
    asked = {
        name for command in ALL for extras in re.findall(r'"\.\[(.*)\]"', command.line) for name in extras.split(",")
    }
    assert asked
    assert asked <= set(re.findall(r'^        "(\w+)": ', (ROOT / "setup.py").read_text(), flags=re.MULTILINE))


# ---- flags


def options(made: argparse.ArgumentParser) -> Iterator[str]:
    for action in made._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from options(command)


@pytest.fixture(scope="module")
def of_megatron(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """In a process of its own: importing Megatron changes the one that it is imported in."""
    program = tmp_path_factory.mktemp("flags") / "program.py"
    program.write_text("""
import argparse
from megatron.training.arguments import add_megatron_arguments
parser = argparse.ArgumentParser(add_help=False)
add_megatron_arguments(parser)
print(*parser._option_string_actions)
""")
    done = run(pool, program, kind=MEGATRON)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_every_flag_that_is_shown_is_one_of_a_program_that_is_named(of_megatron: set[str]) -> None:
    ours = {*options(parser()), *options(add_flags(argparse.ArgumentParser()))}
    others = {f"--{flag}" for flags in FLAGS_OF_OTHERS.values() for flag in flags.split()}
    shown = {form for flag in documented.flags() for form in (flag.replace("[no-]", ""), flag.replace("[no-]", "no-"))}
    assert shown - ours - of_megatron - others == set()


def test_no_flag_is_called_that_of_another_program_which_nobody_shows() -> None:
    listed = {f"--{flag}" for flags in FLAGS_OF_OTHERS.values() for flag in flags.split()}
    assert listed - documented.flags() == set()


# ---- run as typed

SHELL = """
megatron-resume() {
  case "$1" in
    launch) "$PYTHON" -IS "$TYPED" "$POOL/torch" "$FORKED_LAUNCH" "$@" ;;
    status) "$PYTHON" -m megatron_resume "$@" ;;  # others are forked, since their imports are most of what they do
    *) "$PYTHON" -IS "$TYPED" "$POOL/plain" "$FORKED" -m megatron_resume "$@" ;;
  esac
}
kubectl() { test "$1 $2" = "create -f" && test -f "$3"; }  # all that can be asked of it here
"""
BLOCKS = [
    (page, number, [line for line in block if is_here(line) or line.startswith("kubectl ")])
    for page in PAGES
    for number, block in enumerate(documented.blocks(page))
]


@pytest.fixture
def there(tmp_path: Path) -> dict[str, str]:
    """What stands on the pages, and what a test has in its place."""
    job = JobOnDisk(tmp_path / "run1")
    attempt = job.attempt()
    for iteration in (2, 4, 6, 8):
        job.save(attempt, iteration)
    old = ChatLearnJob(tmp_path / "old")
    old.save(4)
    pretrain = {"pretrain_gpt.py": upstream.PRETRAIN}
    (tmp_path / "train.py").write_text("import sys\nassert sys.argv[1:] in (['ARGS'], []), sys.argv\n")
    return {
        "/shared/run1/data_checkpoint": str(job.root),
        "/opt/Megatron-LM": str(upstream.make(tmp_path / "Megatron-LM", pretrain)),
        " .../": f" {ROOT}/",
        " ...": "",
        " OLD ": f" {old.data} ",
        "--policy-load DIR": f"--policy-load {old.models['policy']}",
        "--value-load DIR": f"--value-load {old.models['value']}",
    }


@pytest.mark.parametrize(
    ("page", "lines"),
    [pytest.param(page, lines, id=f"{page}, block {number}") for page, number, lines in BLOCKS if lines],
)
def test_a_block_does_what_is_typed(
    page: str, lines: list[str], there: dict[str, str], tmp_path: Path, torch_pool: Pool
) -> None:
    script = "\n".join(dict.fromkeys(way for line in lines for way in ways(line)))
    for shown, made in there.items():
        script = script.replace(shown, made)
    torch_pool.connect(TORCH if f"{OURS} launch" in script else PLAIN).close()  # which waits until it can be
    programs = {"TYPED": "typed.py", "FORKED": "python.py", "FORKED_LAUNCH": "forked_launch.py"}
    environ = os.environ | {name: str(PROGRAMS / program) for name, program in programs.items()}
    environ |= {"PYTHON": sys.executable, "POOL": str(torch_pool.folder), COMM: "typed"}
    environ |= {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = ["bash", "-euo", "pipefail", "-c", SHELL + script]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"


def test_a_word_in_place_of_a_command_would_be_seen(there: dict[str, str], tmp_path: Path, torch_pool: Pool) -> None:
    with pytest.raises(AssertionError, match="invalid choice: 'statsu'"):
        test_a_block_does_what_is_typed(
            "", [f"{OURS} statsu /shared/run1/data_checkpoint"], there, tmp_path, torch_pool
        )


@pytest.mark.slow
def test_make_demo_ends_with_runs_that_are_identical() -> None:
    """With the environment that is there; how it is made is in tests/test_set_up.py."""
    stamp = ".venv/.installed"
    done = subprocess.run(["make", "-o", stamp, "demo"], cwd=ROOT, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((ROOT / "demo_output" / "result.json").read_text())["identical"] is True
