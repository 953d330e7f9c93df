"""The commands and their arguments; each command's module is imported when it is called.

argparse, since typer's own import takes longer than all that `status` may take (2026-11: 0.26 s with
pydantic below it; 0.3 s are promised).
"""

import argparse
from pathlib import Path
from typing import NoReturn

from megatron_resume.shown import shown


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Which quotes what was typed."""
        super().error(shown(message))


def parser() -> argparse.ArgumentParser:
    """The command line; parsed arguments hold `call`, which runs the command and returns its exit code."""
    top: argparse.ArgumentParser = _Parser(
        prog="megatron-resume",
        description="Automatic, exact resume of RLHF training on Megatron-LM.",
        epilog="Exit codes: 65 damaged, 78 configuration or mismatch, 203 restart to rejoin.",
    )
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    # `run` is executed before this parser is made: all that follows SCRIPT is the script's own.
    commands.add_parser("run", help="execute a training script in this process, with the hooks installed")

    text = "print the resume points, the roles, and the outcome that a start would have"
    status = commands.add_parser("status", help=text, description=text)
    status.add_argument("directory", type=_named, metavar="DIR", help="the data checkpoint folder of the job")
    status.add_argument("--json", action="store_true", help="print JSON instead of tables")
    status.set_defaults(call=_status)

    _add_report(commands)
    _add_explain(commands)
    _add_verify(commands)
    _add_prune(commands)

    text = "list versions, hooks and known traps on this machine; exit 78 if Megatron is unusable"
    doctor = commands.add_parser("doctor", help=text, description=text)
    doctor.add_argument("--json", action="store_true", help="print JSON instead of tables")
    text = "your training command; its arguments are examined too"
    doctor.add_argument("command", nargs=argparse.REMAINDER, metavar="SCRIPT ARGS...", help=text)
    doctor.set_defaults(call=_doctor)
    _add_import(commands)
    _add_policy(commands)
    _add_launch(commands)
    _add_patch(commands)
    return top


def _named(text: str) -> Path:
    """An argument that names a folder: empty, as of a shell variable that is not set, it is not the working folder."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; name a folder")
    return Path(text)


def _named_file(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("is empty; name a file")
    return Path(text)


def _add_report(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "write the life of the run as an HTML page and a PNG: attempts, failures, what they cost, rewards"
    report = commands.add_parser("report", help=text, description=text)
    report.add_argument("directory", type=_named, metavar="DIR", help="the data checkpoint folder of the job")
    text = "where to; the PNG lies beside it (default: megatron_resume_report.html in the working folder)"
    report.add_argument("--to", type=_named_file, metavar="FILE.html", help=text)
    text = "JSON lines with iteration, attempt and reward; looked for where the example writes its trace.jsonl"
    report.add_argument("--trace", type=_named_file, metavar="FILE", help=text)
    report.set_defaults(call=_report)


def _add_explain(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "print what a start would do and why: point, line, and each argument that it changes; exits as it would"
    explain = commands.add_parser("explain", help=text, description=text)
    explain.add_argument("directory", type=_named, metavar="DIR", help="the data checkpoint folder of the job")
    explain.add_argument("--role", metavar="ROLE", help="show the arguments of this role only")
    explain.add_argument("--json", action="store_true", help="print JSON instead of tables")
    asked = explain.add_argument_group("requests", "as a start takes them")
    asked.add_argument("--load-data-checkpoint-iteration", metavar="N", help="continue from this iteration")
    asked.add_argument("--load-data-checkpoint-attempt", metavar="A", help="continue from the line of this attempt")
    asked.add_argument("--start-over", action="store_true", default=None, help="start fresh")
    explain.set_defaults(call=_explain)


def _add_verify(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "check every committed point, and with --deep the content of every model; exit 65 if one is damaged"
    verify = commands.add_parser("verify", help=text, description=text)
    verify.add_argument("directory", type=_named, metavar="DIR", help="the data checkpoint folder of the job")
    text = "read every model file and compare it with its digest; when interrupted, the next one goes on from there"
    verify.add_argument("--deep", action="store_true", help=text)
    verify.add_argument("--again", action="store_true", help="with --deep: begin anew after an interruption")
    verify.add_argument("--json", action="store_true", help="print JSON instead of tables")
    verify.set_defaults(call=_verify)


def _add_prune(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "remove all but the newest resume points of the live line, as --max-data-ckpt-nums does in a job"
    prune = commands.add_parser("prune", help=text, description=text)
    prune.add_argument("directory", type=_named, metavar="DIR", help="the data checkpoint folder of the job")
    prune.add_argument("--keep", type=int, required=True, metavar="K", help="points to keep, 2 or more")
    prune.add_argument("--models", action="store_true", help="also delete the model checkpoints of what is removed")
    prune.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    prune.add_argument("--json", action="store_true", help="print JSON")
    prune.set_defaults(call=_prune)


def _add_import(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "make a resume point of ChatLearn's data checkpoint and the models beside it, which stay as they are"
    command = commands.add_parser("import-chatlearn", help=text, description=text)
    command.add_argument("old", type=_named, metavar="OLD", help="ChatLearn's data_checkpoint_path")
    command.add_argument(
        "--policy-load", type=Path, metavar="DIR", required=True, help="the folder that ppo_policy was saved to"
    )
    command.add_argument(
        "--value-load", type=Path, metavar="DIR", help="that of ppo_value; without it, policy alone is trained"
    )
    command.add_argument("--to", metavar="NEW", required=True, help="the data checkpoint folder to begin")
    text = "the step to import, where it is not the one that ChatLearn's tracker names"
    command.add_argument("--step", type=int, metavar="N", help=text)
    text = "the models' iteration, where a script numbers them otherwise than the steps"
    command.add_argument("--model-iteration", type=int, metavar="N", help=text)
    command.set_defaults(call=_import_chatlearn)


def _add_policy(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "write or check fault_tolerance.yaml: what restarts the job, how often, after how long a hang"
    policy = commands.add_parser("policy", help=text, description=text)
    steps = policy.add_subparsers(metavar="STEP", required=True)
    text = "write the policy by default, with what each field means"
    init = steps.add_parser("init", help=text, description=text)
    init.add_argument("file", type=Path, nargs="?", metavar="FILE", help="where to; printed without it")
    init.set_defaults(call=_policy_init)
    text = "say whether a policy can be used; exit 78 if not"
    check = steps.add_parser("check", help=text, description=text)
    check.add_argument("file", metavar="FILE", help="fault_tolerance.yaml")
    check.set_defaults(call=_policy_check)


def _add_launch(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "run a training script under a policy: restarted, ended truly, and no process left behind"
    launch = commands.add_parser("launch", help=text, description=text)
    launch.add_argument("--engine", choices=("torchrun", "nvrx"), default="torchrun", help="what starts the ranks")
    text = "count the policy's restarts from now on, after the cause of the failures before was mended"
    launch.add_argument("--new-budget", action="store_true", help=text)
    _add_job(launch)
    launch.set_defaults(call=_launch)
    text = "print what a policy becomes for a launch engine, and what the engine cannot do"
    render = commands.add_parser("render", help=text, description=text)
    engines = ("torchrun", "nvrx", "aimaster", "pytorchjob", "jobset", "slurm")
    render.add_argument("--engine", choices=engines, required=True, help="the launch engine")
    render.add_argument("--to", metavar="DIR", help="write files there, and do not print them")
    cluster = render.add_argument_group("on a cluster", "aimaster, pytorchjob, jobset and slurm")
    cluster.add_argument("--name", default="megatron-resume", metavar="NAME", help="the name of the job")
    cluster.add_argument("--image", metavar="IMAGE", help="a container image with Megatron and megatron_resume in it")
    text = "mount a volume claim there, such as the one for checkpoints; may be repeated (Kubernetes)"
    cluster.add_argument("--mount", action="append", default=[], metavar="CLAIM:/PATH", help=text)
    cluster.add_argument("--gpus-per-node", type=int, metavar="N", help="as many as ranks by default; 0 for none")
    _add_job(render)
    render.set_defaults(call=_render)


def _add_job(command: argparse.ArgumentParser) -> None:
    text = "fault_tolerance.yaml; without it the environment variable MEGATRON_RESUME_POLICY, or the policy by default"
    command.add_argument("--policy", metavar="FILE", help=text)
    command.add_argument("--nnodes", type=int, default=1, metavar="N", help="nodes, 1 by default; launch on each")
    command.add_argument("--nproc-per-node", type=int, default=1, metavar="N", help="ranks on each node, 1 by default")
    command.add_argument("--rdzv-endpoint", metavar="HOST:PORT", help="where several nodes meet")
    command.add_argument("--rdzv-id", metavar="NAME", help="the name of this launch on all nodes")
    nvrx = command.add_argument_group("nvrx")
    nvrx.add_argument("--ft-launcher", default="ft_launcher", metavar="PATH", help="ft_launcher, if it is not on PATH")
    text = "of ft_launcher, 0.4 or 0.7; asked for beside it by default"
    nvrx.add_argument("--nvrx-version", metavar="VERSION", help=text)
    command.add_argument("command", nargs=argparse.REMAINDER, metavar="-- SCRIPT ARGS...", help="the training script")


def _add_patch(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = (
        "put our import line into the entrypoints of a source tree of Megatron-LM or ChatLearn, and take it out again"
    )
    patch = commands.add_parser("patch", help=text, description=text)
    steps = patch.add_subparsers(metavar="STEP", required=True)
    texts = {
        "check": "say of each entrypoint whether it holds the line; exit 78 unless each does",
        "apply": "put the line into each entrypoint that lacks it; nothing is changed where one is refused (78)",
        "revert": "take the line out of what `apply` patched, to the byte; refused (78) where that was changed since",
    }
    for name, text in texts.items():
        step = steps.add_parser(name, help=text, description=text)
        step.add_argument("directory", type=_named, metavar="DIR", help="the root of the source tree")
        if name != "revert":
            skip = "a file below DIR that is left alone; may be repeated"
            step.add_argument("--skip", action="append", default=[], metavar="FILE", help=skip)
        if name == "check":
            step.add_argument("--diff", action="store_true", help="print what `apply` would change, for `patch -p1`")
        step.add_argument("--json", action="store_true", help="print JSON")
        step.set_defaults(call=_patch, step=name)


def _status(args: argparse.Namespace) -> int:
    from .status import status

    status(args.directory, json=args.json)
    return 0


def _report(args: argparse.Namespace) -> int:
    from .report import report

    report(args.directory, to=args.to, trace_file=args.trace)
    return 0


def _prune(args: argparse.Namespace) -> int:
    from .prune import prune

    prune(args.directory, keep=args.keep, models=args.models, dry_run=args.dry_run, json=args.json)
    return 0


def _explain(args: argparse.Namespace) -> int:
    from .explain import explain

    requests = ("load_data_checkpoint_iteration", "load_data_checkpoint_attempt", "start_over")
    asked = {request: getattr(args, request) for request in requests}
    return explain(args.directory, asked=asked, role=args.role, json=args.json)


def _verify(args: argparse.Namespace) -> int:
    from .verify import verify

    return verify(args.directory, deep=args.deep or args.again, again=args.again, json=args.json)


def _doctor(args: argparse.Namespace) -> int:
    from .doctor import doctor

    return doctor(args.command, json=args.json)


def _policy_init(args: argparse.Namespace) -> int:
    from .policy import init

    init(args.file)
    return 0


def _policy_check(args: argparse.Namespace) -> int:
    from .policy import check

    check(args.file)
    return 0


def _launch(args: argparse.Namespace) -> int:
    from .launch import launch

    return launch(args)


def _render(args: argparse.Namespace) -> int:
    from .launch import render

    return render(args)


def _import_chatlearn(args: argparse.Namespace) -> int:
    from .import_chatlearn import run

    models = {"policy": args.policy_load, "value": args.value_load}
    run(args.old, models, args.to, args.step, args.model_iteration)
    return 0


def _patch(args: argparse.Namespace) -> int:
    from . import patch

    if args.step == "check":
        return patch.check(args.directory, skip=args.skip, as_diff=args.diff, json=args.json)
    if args.step == "apply":
        return patch.apply(args.directory, skip=args.skip, json=args.json)
    return patch.revert(args.directory, json=args.json)
