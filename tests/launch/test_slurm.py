"""The batch script for Slurm: documented options, a launch on each node, and an end or a requeue by its exit code."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from megatron_resume.launch import slurm
from megatron_resume.policy import VARIABLE, policy_of_environ
from support.engines import CASES, DEFAULT, TWO_NODES, Case
from support.node_shell import assert_launches, program

# sbatch(1) of Slurm 22.05, those that a job script of ours could want
SBATCH = {"account", "cpus-per-task", "exclusive", "gpus-per-node", "gres", "job-name", "mem", "no-requeue", "nodes"}
SBATCH |= {"ntasks-per-node", "open-mode", "output", "partition", "qos", "requeue", "signal", "time"}

of_slurm = pytest.mark.parametrize(
    "case", [case for case in CASES if case.engine == "slurm"], ids=lambda case: case.name
)


@of_slurm
def test_a_batch_script_has_documented_options_only_and_parses(case: Case) -> None:
    text = case.rendered().files[slurm.FILE]
    options = [line.removeprefix("#SBATCH --").partition("=")[0] for line in text.splitlines() if "#SBATCH" in line]
    assert {"nodes", "signal", "ntasks-per-node"} <= set(options) <= SBATCH
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


@of_slurm
@pytest.mark.parametrize("code", [0, 70, 201])
def test_a_batch_script_launches_on_each_node_and_requeues_what_may_go_on(
    case: Case, code: int, tmp_path: Path
) -> None:
    """Run by bash, with programs in place of srun and scontrol, which no machine without Slurm has."""
    srun = f'printf "%s" "${VARIABLE}" >{tmp_path}/policy; printf "%s\\n" "$@" >{tmp_path}/srun.args; exit {code}'
    program(tmp_path / "srun", srun)
    nodes = '[ "$1" != show ] || [ "$2" != hostnames ] || printf "n0\\nn1\\n"'
    program(tmp_path / "scontrol", f'echo "$@" >>{tmp_path}/scontrol.args; {nodes}')
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "n[0-1]"}
    text = case.rendered().files[slurm.FILE]
    assert subprocess.run(["bash"], input=text, text=True, env=environ).returncode == code
    assert policy_of_environ({VARIABLE: (tmp_path / "policy").read_text()}) == case.policy
    asked = (tmp_path / "scontrol.args").read_text().splitlines()
    assert ("requeue 4711" in asked) is (code >= 128 and case.policy.max_restarts > 0)
    options, shell = (tmp_path / "srun.args").read_text().split("\nbash\n-c\n")
    assert options.splitlines() == ["--kill-on-bad-exit=1", "--cpu-bind=none"]
    assert_launches(shell, case, {"RDZV_HOST": "n0", "RDZV_PORT": "24711", "SLURM_JOB_ID": "4711"})


@pytest.mark.parametrize(("codes", "ends_with"), [((78, 143), 78), ((143, 143), 143), ((0, 0), 0), ((203, 1), 1)])
def test_the_final_code_of_one_node_is_that_of_a_slurm_job(
    codes: tuple[int, int], ends_with: int, tmp_path: Path
) -> None:
    """As srun does: the highest code of all tasks. As scontrol does: a comment is kept, and shown."""
    highest = 'highest=0; for task in 0 1; do TASK=$task bash -c "${@: -1}"; code=$?'
    program(tmp_path / "srun", f'{highest}; [ "$code" -le "$highest" ] || highest=$code; done; exit "$highest"')
    keep = f'[ "$1" != update ] || echo "${{@: -1}}" >{tmp_path}/comment'
    show = f'[ "$2" != job ] || sed "s/^/   /" {tmp_path}/comment'
    program(tmp_path / "scontrol", f'echo "$@" >>{tmp_path}/asked; {keep}; {show}')
    program(tmp_path / "python", f"codes=({codes[0]} {codes[1]}); exit ${{codes[$TASK]}}")
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "n[0-1]"}
    text = slurm.render(DEFAULT, TWO_NODES).files[slurm.FILE]
    assert subprocess.run(["bash"], input=text, text=True, env=environ).returncode == ends_with
    assert ("requeue 4711" in (tmp_path / "asked").read_text().splitlines()) is (ends_with >= 128)


@pytest.mark.parametrize(
    "argument", ["\nEND_OF_NODE\ntouch hit\n", "\nEND_OF_NODE_\nEND_OF_NODE\ntouch hit", "\nPOLICY\n)"]
)
def test_no_argument_ends_the_text_for_the_nodes(argument: str, tmp_path: Path) -> None:
    program(tmp_path / "srun", f'python() {{ printf "%s\\0" "$@" >{tmp_path}/words; }}; eval "${{@: -1}}"')
    program(tmp_path / "scontrol", "")
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "n[0-1]"}
    text = slurm.render(DEFAULT, TWO_NODES._replace(command=("train.py", argument, "last"))).files[slurm.FILE]
    subprocess.run(["bash"], input=text, text=True, env=environ, cwd=tmp_path)
    assert (tmp_path / "words").read_text().split("\0")[-4:-1] == ["train.py", argument, "last"]
    assert not (tmp_path / "hit").exists()


def test_a_node_waits_for_its_launch_when_both_are_told_to_end(tmp_path: Path) -> None:
    """Slurm signals the whole process group of a task."""
    program(tmp_path / "python", f'trap "exit 202" TERM; touch {tmp_path}/begun; while :; do sleep 0.02; done')
    text = slurm.render(DEFAULT, TWO_NODES).files[slurm.FILE]
    _, _, after = text.partition("<<'END_OF_NODE'\n")
    shell, _, _ = after.partition("END_OF_NODE\n")
    node = subprocess.Popen(["bash", "-c", shell], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, start_new_session=True)
    while not (tmp_path / "begun").exists():
        assert node.poll() is None
    os.killpg(node.pid, signal.SIGTERM)
    assert node.wait() == 202
