"""`launch` runs a job under a policy; `render` shows what it would run, here or on a cluster."""

import argparse
import logging
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from megatron_resume.checkpoint.atomic import make_folder, replacing
from megatron_resume.checkpoint.lives import NEW_BUDGET_VARIABLE
from megatron_resume.errors import ConfigError
from megatron_resume.launch import aimaster, jobset, nvrx, pytorchjob, slurm, torchrun
from megatron_resume.launch.job import Job, Rendered
from megatron_resume.launch.parent import launch as run
from megatron_resume.policy import Policy, policy_of_environ, read_policy
from megatron_resume.shown import Shown, shown_in_line
from megatron_resume.withheld import names_a_secret, typed, without_secrets

ENGINES: dict[str, Callable[[Policy, Job], Rendered]] = {
    "torchrun": torchrun.render,
    "nvrx": nvrx.render,
    "aimaster": aimaster.render,
    "pytorchjob": pytorchjob.render,
    "jobset": jobset.render,
    "slurm": slurm.render,
}
LAUNCHABLE = ("torchrun", "nvrx")
_VERSION = "from importlib.metadata import version; print(version('nvidia-resiliency-ext'))"


def launch(args: argparse.Namespace) -> int:
    """Run the job to its end; returns its exit code.

    Raises:
        ConfigError: Before anything is started: the script or the engine is not there, or the policy is wrong.
    """
    _open_what_is_closed()
    logging.basicConfig(level=logging.INFO, format="megatron-resume launch: %(message)s")
    logging.getLogger("megatron_resume").addFilter(Shown())  # what ranks said of their ends is quoted
    if args.engine == "nvrx":
        args.ft_launcher = found(args.ft_launcher)
    policy, job, rendered = rendered_for(args)
    if not Path(job.command[0]).is_file():
        raise ConfigError(f"{job.command[0]} is no file; write the training script and its arguments after `--`")
    if args.new_budget:
        os.environ[NEW_BUDGET_VARIABLE] = secrets.token_hex(8)  # ranks read it, also after restarts: once per launch
    return run(policy, rendered, job_id=args.rdzv_id if args.nnodes > 1 else None)


def _open_what_is_closed() -> None:
    """A service may start us without standard files. What is opened next would take their place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)  # by the engine
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def render(args: argparse.Namespace) -> int:
    """Print what the engine is told, and write the files that it needs where they were asked for."""
    job_of(args).check().check_text()
    _, _, rendered = rendered_for(args)
    print(rendered.as_shell())
    for name, text in rendered.files.items():
        if args.to is None:
            print(f"\n# {name}\n{text}", end="")
        else:
            path = Path(args.to, name)
            make_folder(path.parent, below=Path(args.to))
            with replacing(path, below=Path(args.to), mode=0o600) as file:  # it holds the arguments of the script
                file.write(text.encode())
            print(f"wrote {shown_in_line(str(path))}")
    for warning in (*rendered.warnings, *_secrets(args.command)):
        print(f"# note: {shown_in_line(warning)}")
    return 0


def _secrets(command: Sequence[str]) -> Iterator[str]:
    """A warning of arguments that whoever sees the command line would know."""
    looks_secret = [name for name, value in typed(command) if names_a_secret(name) or value != without_secrets(value)]
    names = ", ".join(map(shown_in_line, dict.fromkeys(looks_secret)))
    if names:
        yield (
            f"the values of {names} stand in what is rendered, and all who may look at the job see them; "
            "let the script read them from a file or from its environment"
        )


def rendered_for(args: argparse.Namespace) -> tuple[Policy, Job, Rendered]:
    """The policy, the job, and what both become for the engine. Raises ConfigError before anything is started."""
    policy = read_policy(args.policy) if args.policy else policy_of_environ(os.environ)
    job = job_of(args).check()
    return policy, job, ENGINES[args.engine](policy, job)


def job_of(args: argparse.Namespace) -> Job:
    """What the command line describes."""
    is_here = args.engine in LAUNCHABLE  # elsewhere the interpreter is that of the image
    of_cluster = {name: getattr(args, name) for name in ("name", "image", "gpus_per_node") if hasattr(args, name)}
    return Job(
        command=tuple(args.command[1:] if args.command[:1] == ["--"] else args.command),
        nnodes=args.nnodes,
        nproc_per_node=args.nproc_per_node,
        endpoint=args.rdzv_endpoint,
        job_id=args.rdzv_id,
        python=(sys.executable or "python") if is_here else "python",
        ft_launcher=args.ft_launcher,
        nvrx_version=args.nvrx_version or (version_beside(args.ft_launcher) if args.engine == "nvrx" else None),
        mounts=tuple(getattr(args, "mount", ())),
        **of_cluster,
    )


def found(program: str) -> str:
    """The path of ft_launcher. Raises ConfigError where there is none."""
    path = shutil.which(program)
    if path is None:
        raise ConfigError(
            f"{program} is no program that could be started; install nvidia-resiliency-ext into an environment of its "
            "own (beside Megatron 0.19 it breaks the imports) and give --ft-launcher ENVIRONMENT/bin/ft_launcher"
        )
    return path


def version_beside(program: str) -> str | None:
    """The release that `program` belongs to, as the interpreter in its folder says; None where nothing says it."""
    path = shutil.which(program)
    if path is None:
        return None
    python = Path(path).with_name("python")
    try:
        asked = subprocess.run([python, "-c", _VERSION], capture_output=True, text=True, timeout=60)
    except OSError:
        return None
    return asked.stdout.strip() or None
