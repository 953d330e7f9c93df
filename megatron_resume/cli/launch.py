"""`launch` runs a job under a policy; `render` shows what it would run."""

import argparse
import logging
import os
import secrets
from pathlib import Path

from megatron_resume.checkpoint.lives import NEW_BUDGET_VARIABLE
from megatron_resume.errors import ConfigError
from megatron_resume.launch import aimaster, torchrun
from megatron_resume.launch.job import Job, Rendered
from megatron_resume.launch.parent import launch as run
from megatron_resume.policy import Policy, read_policy

ENGINES = {"torchrun": torchrun.render, "aimaster": aimaster.render}
LAUNCHABLE = ("torchrun",)


def launch(args: argparse.Namespace) -> int:
    """Run the job to its end; returns its exit code."""
    logging.basicConfig(level=logging.INFO, format="megatron-resume launch: %(message)s")
    policy, rendered = rendered_for(args)
    if args.new_budget:
        os.environ[NEW_BUDGET_VARIABLE] = secrets.token_hex(8)  # ranks read it, also after restarts: once per launch
    return run(policy, rendered, job_id=args.rdzv_id if args.nnodes > 1 else None)


def render(args: argparse.Namespace) -> int:
    """Print what the engine is told, and write the files that it needs where they were asked for."""
    _, rendered = rendered_for(args)
    print(rendered.as_shell())
    for name, text in rendered.files.items():
        if args.to is None:
            print(f"\n# {name}\n{text}", end="")
        else:
            path = Path(args.to, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path}")
    for warning in rendered.warnings:
        print(f"# note: {warning}")
    return 0


def rendered_for(args: argparse.Namespace) -> tuple[Policy, Rendered]:
    """The policy, and what it becomes for the engine. Raises ConfigError before anything is started."""
    policy = read_policy(args.policy) if args.policy else Policy()
    command = tuple(args.command[1:] if args.command[:1] == ["--"] else args.command)
    job = Job(command, args.nnodes, args.nproc_per_node, args.rdzv_endpoint, args.rdzv_id).check()
    if not Path(command[0]).is_file():
        raise ConfigError(f"{command[0]} is no file; write the training script and its arguments after `--`")
    return policy, ENGINES[args.engine](policy, job)
