"""The shell lines of nodes, run with programs in place of those that this machine lacks."""

import subprocess
from pathlib import Path

from megatron_resume.cli.app import parser

from .engines import Case


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


def assert_launches(shell: str, case: Case, environ: dict[str, str]) -> None:
    """The shell line of a node is a `launch` that our own command line accepts, with the same job in it."""
    printed = subprocess.run(
        ["bash", "-c", f'python() {{ printf "%s\\0" "$@"; }}\n{shell.replace("exec ", "")}'],
        env={"PATH": "/usr/bin:/bin", **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    words = printed.stdout.split("\0")[:-1]
    assert words[:3] == ["-m", "megatron_resume", "launch"]
    args = parser().parse_args(words[2:])
    assert tuple(args.command[1:]) == case.job.command
    assert (args.nnodes, args.nproc_per_node) == (case.job.nnodes, case.job.nproc_per_node)
    if case.job.nnodes > 1:
        host, _, port = args.rdzv_endpoint.rpartition(":")
        assert host and 0 < int(port) < 65_536 and args.rdzv_id
