"""The commands and their arguments; each command's module is imported when it is called.

argparse, since typer's own import takes longer than all that `status` may take (2026-11: 0.26 s with
pydantic below it; 0.3 s are promised).
"""

import argparse
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """The command line; parsed arguments hold `call`, which runs the command and returns its exit code."""
    top = argparse.ArgumentParser(
        prog="megatron-resume",
        description="Automatic, exact resume of RLHF training on Megatron-LM.",
        epilog="Exit codes: 65 damaged, 78 configuration or mismatch, 203 restart to rejoin.",
    )
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    # `run` is executed before this parser is made: all that follows SCRIPT is the script's own.
    commands.add_parser("run", help="execute a training script in this process, with the hooks installed")

    text = "print the resume points, the roles, and the outcome that a start would have"
    status = commands.add_parser("status", help=text, description=text)
    status.add_argument("directory", type=Path, metavar="DIR", help="the data checkpoint folder of the job")
    status.add_argument("--json", action="store_true", help="print JSON instead of tables")
    status.set_defaults(call=_status)

    text = "remove all but the newest resume points of the live line, as --max-data-ckpt-nums does in a job"
    prune = commands.add_parser("prune", help=text, description=text)
    prune.add_argument("directory", type=Path, metavar="DIR", help="the data checkpoint folder of the job")
    prune.add_argument("--keep", type=int, required=True, metavar="K", help="points to keep, 2 or more")
    prune.add_argument("--models", action="store_true", help="also delete the model checkpoints of what is removed")
    prune.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    prune.add_argument("--json", action="store_true", help="print JSON")
    prune.set_defaults(call=_prune)

    text = "list versions, hooks and known traps on this machine; exit 78 if Megatron is unusable"
    doctor = commands.add_parser("doctor", help=text, description=text)
    doctor.add_argument("--json", action="store_true", help="print JSON instead of tables")
    text = "your training command; its arguments are examined too"
    doctor.add_argument("command", nargs=argparse.REMAINDER, metavar="SCRIPT ARGS...", help=text)
    doctor.set_defaults(call=_doctor)
    return top


def _status(args: argparse.Namespace) -> int:
    from .status import status

    status(args.directory, json=args.json)
    return 0


def _prune(args: argparse.Namespace) -> int:
    from .prune import prune

    prune(args.directory, keep=args.keep, models=args.models, dry_run=args.dry_run, json=args.json)
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from .doctor import doctor

    return doctor(args.command, json=args.json)
