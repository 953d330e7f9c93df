"""Whatever is typed reaches the script as it was typed, by way of each engine's own language."""

import ast
import json
import shlex
import subprocess
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_resume.cli import main
from megatron_resume.cli.app import parser
from megatron_resume.cli.launch import ENGINES
from megatron_resume.errors import ConfigError
from megatron_resume.launch import aimaster, slurm
from megatron_resume.launch.job import Job, Rendered
from megatron_resume.policy import VARIABLE, Policy, policy_of_environ
from megatron_resume.shown import shown
from support.engines import EVERY_FIELD, ONE_NODE, TWO_NODES
from support.node_shell import program

HOSTILE = (
    *(
        "",
        " ",
        "a b",
        "'",
        '"',
        "\\",
        "\\'",
        "''",
        "$HOME",
        "${x}",
        "$(touch x)",
        "`touch x`",
        "!!",
        "*",
        "~",
        "#",
        "-",
        "--",
    ),
    *(
        "a=USER_COMMAND,",
        "=GRACE,",
        "=NAME,",
        "=ERROR_MONITORING_ARGS,",
        "{args!r}",
        "{{}}",
        "%s",
        "%(x)s",
        "\\N{BULLET}",
    ),
    *(
        "END_OF_NODE",
        "x\nEND_OF_NODE\ny",
        "POLICY",
        "\nPOLICY\n",
        "EOF",
        "$$",
        "$$(X)",
        "$(JOBSET_NAME)",
        "$[1]",
        "; exit 1",
    ),
    *(
        "a: b",
        "- x",
        "? y",
        "| z",
        "> z",
        "&anchor",
        "*alias",
        "!!python/object:os.system",
        "%YAML 1.1",
        "---",
        "...",
        "null",
    ),
    *(
        "yes",
        "0o7",
        "1e3",
        "1_000",
        "2001-01-01",
        "<<",
        "=",
        "@x",
        "'''",
        '"""',
        "\\\n",
        "line\n",
        "\n",
        "\n\n",
        " lead\n x",
        "x \n",
    ),
    *(
        "tab\t",
        "\r",
        "\r\n",
        "\x1b[31mred",
        "\x07",
        "\x7f",
        "\x85",
        "\u2028",
        "\u2029",
        "\u202e",
        "\ufeff",
        "\u00e9",
        "\U0001f600",
    ),
    *("\x01", "\x1b]0;title\x07", "$'\\x41'", "-e", "\x85\u2028\n", "#SBATCH --uid=0", "\n#SBATCH --uid=0\n"),
)
NAMES = ("rlhf", "a=USER_COMMAND,", "=NAME,", 'it\'s "x"', "{name!r}", "\x1b[31m", "$(x)", "-x", "a\nb")
COMMAND = ("train dir/it's.py", *HOSTILE)


def words(shell: str, environ: dict[str, str] | None = None) -> list[str]:
    """What bash makes of a line whose program is `python`."""
    told = subprocess.run(
        ["bash", "-c", f'python() {{ printf "%s\\0" "$@"; }}\n{shell.replace("exec ", "", 1)}'],
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", **(environ or {})},
        capture_output=True,
        check=True,
    )
    return told.stdout.decode().split("\0")[:-1]


def script_of(line: list[str]) -> tuple[str, ...]:
    """The script's command in the words of a `launch`."""
    assert line[:3] == ["-m", "megatron_resume", "launch"]
    args = parser().parse_args(line[2:])
    return tuple(args.command[1:])


def rendered(engine: str, job: Job) -> Rendered:
    return ENGINES[engine](EVERY_FIELD, job.check().check_text())


def filled_in(text: str) -> str:
    """As Kubernetes fills in a container's command where no variable is known: `$$` is `$`."""
    found, rest = "", text
    while rest:
        if rest.startswith("$$"):
            found, rest = found + "$", rest[2:]
        else:
            found, rest = found + rest[0], rest[1:]
    return found


def of_torchrun(found: Rendered) -> tuple[str, ...]:
    at = found.command.index("run")
    return found.command[at + 1 :]


def of_slurm(found: Rendered, folder: Path) -> tuple[str, ...]:
    batch = folder / "job.sbatch"
    batch.write_text(found.files[slurm.FILE])
    assert subprocess.run(["bash", "-n", str(batch)]).returncode == 0
    read = takewhile(lambda line: line.startswith("#") or not line.strip(), batch.read_text().split("\n"))
    assert all("uid" not in line for line in read), "sbatch reads options before the first command only"
    program(folder / "srun", f'printf "%s" "${{!#}}" > {folder}/node; printf "%s" "${VARIABLE}" > {folder}/policy')
    for name in ("scontrol", "head"):
        program(folder / name, "exit 0")
    environ = {"PATH": f"{folder}:/usr/bin:/bin", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n"}
    subprocess.run(["bash", str(batch)], env=environ, check=True)
    assert policy_of_environ({VARIABLE: (folder / "policy").read_text()}) == EVERY_FIELD
    node = (folder / "node").read_text()
    lines = node.partition("\ncode=$?")[0].removeprefix("trap : TERM # launch gets it as well, and is waited for\n")
    return script_of(words(lines))


def of_kubernetes(found: Rendered, file: str) -> tuple[str, ...]:
    (text,) = found.files.values()
    assert file in found.files
    containers = list(_containers(yaml.safe_load(text)))
    shells = {tuple(container["command"]) for container in containers}
    ((bash, dash_c, shell),) = shells
    assert (bash, dash_c) == ("bash", "-c")
    line = filled_in(shell)
    return script_of(words(line[line.index("exec ") :]))


def _containers(node: Any) -> Any:
    if isinstance(node, dict):
        yield from node.get("containers", ())
    for item in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _containers(item)


def of_aimaster(found: Rendered) -> list[tuple[str, ...]]:
    """By each way in: the command line, and the SDK."""
    tree = ast.parse(found.files["settings.py"])
    calls = {
        node.func.id: node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    request = {
        one.arg: ast.literal_eval(one.value) for one in calls["CreateJobRequest"].keywords if one.arg != "settings"
    }
    settings = {one.arg: ast.literal_eval(one.value) for one in calls["JobSettings"].keywords}
    told = json.loads(found.files["settings.json"])["Settings"]
    assert (
        settings["error_monitoring_args"]
        == told["ErrorMonitoringArgs"]
        == found.command[found.command.index("--aimaster_args") + 1]
    )
    assert request["display_name"] == found.command[found.command.index("--name") + 1]
    lines = [request["user_command"], found.command[found.command.index("--command") + 1]]
    return [script_of(words(line[line.index("exec ") :])) for line in lines]


def scripts(engine: str, job: Job, folder: Path) -> list[tuple[str, ...]]:
    """The script's command as whoever reads what was rendered finds it."""
    found = rendered(engine, job)
    shell = subprocess.run(
        ["bash", "-c", f'for_all() {{ printf "%s\\0" "$@"; }}\nfor_all {found.as_shell()}'],
        env={"LC_ALL": "C"},
        capture_output=True,
        check=True,
    ).stdout.decode()
    assert tuple(shell.split("\0")[:-1][len(found.environ) :]) == found.command, "the line to type"
    if engine in ("torchrun", "nvrx"):
        return [of_torchrun(found)]
    if engine == "aimaster":
        return of_aimaster(found)
    if engine == "slurm":
        return [of_slurm(found, folder)]
    return [of_kubernetes(found, f"{engine}.yaml")]


def job_of(engine: str, command: tuple[str, ...], *, nodes: int = 1) -> Job:
    job = TWO_NODES if nodes > 1 else ONE_NODE
    return job._replace(command=command, nvrx_version="0.7" if engine == "nvrx" else None, python="python")


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("engine", ENGINES)
def test_the_argument_vector_is_unchanged(engine: str, nodes: int, tmp_path: Path) -> None:
    job = job_of(engine, COMMAND, nodes=nodes)
    for found in scripts(engine, job, tmp_path):
        assert found == COMMAND


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=15)
@given(
    arguments=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8), max_size=4
    )
)
def test_any_text_reaches_the_script(
    engine: str, arguments: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    command = ("train.py", *arguments)
    for found in scripts(engine, job_of(engine, command), tmp_path_factory.mktemp("job")):
        assert found == command


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_name_is_kept_or_refused(engine: str, name: str, tmp_path: Path) -> None:
    job = job_of(engine, COMMAND)._replace(name=name)
    try:
        found = scripts(engine, job, tmp_path)
    except ConfigError as error:
        assert "--name is" in str(error)
        assert shown(str(error)) == str(error)
        return
    assert set(found) == {COMMAND}
    if engine == "aimaster":
        tree = ast.parse(aimaster.render(Policy(), job).files["settings.py"])
        assert name in [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]


@pytest.mark.parametrize("image", ["a b", "it's", "x: y", "yes", "{a}", "a\nb", "#", "$(X)", "\x1b[31m", "\u2028"])
@pytest.mark.parametrize("engine", ["pytorchjob", "jobset", "aimaster"])
def test_an_image_and_a_mount_are_kept(engine: str, image: str, tmp_path: Path) -> None:
    job = job_of(engine, COMMAND)._replace(image=image, mounts=(f"ckpt:/{image}",))
    assert set(scripts(engine, job, tmp_path)) == {COMMAND}
    found = rendered(engine, job)
    if engine == "aimaster":
        assert found.command[found.command.index("--worker_image") + 1] == image
        return
    (text,) = found.files.values()
    for container in _containers(yaml.safe_load(text)):
        assert container["image"] == image
        assert container["volumeMounts"][1] == {"name": "ckpt", "mountPath": f"/{image}"}


@pytest.mark.parametrize("to", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_printed_obeys_nothing(
    engine: str, to: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--engine", engine, *(["--to", str(tmp_path / "\x1b[31m\u202e")] if to else [])]
    options += ["--nvrx-version", "0.7"] if engine == "nvrx" else []
    options += ["--image", "i"] if engine in ("aimaster", "pytorchjob", "jobset") else []
    assert main(["render", *options, "--", *COMMAND]) == 0
    printed = capsys.readouterr().out
    assert shown(printed) == printed
    assert "WARNING" not in printed


@pytest.mark.parametrize("engine", ENGINES)
def test_text_that_no_file_can_hold_is_refused_by_name(engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "--engine", engine, "--", "train.py", "\udcff"]) == 78
    assert "'\\udcff' is not UTF-8" in capsys.readouterr().err


def test_a_word_for_bash_is_one_that_shlex_reads_too_unless_it_would_move_a_cursor() -> None:
    line = ONE_NODE._replace(command=tuple(one for one in COMMAND if shown(one) == one)).of_rank
    assert tuple(shlex.split(Rendered(line, {}, {}, ()).as_shell())) == line
