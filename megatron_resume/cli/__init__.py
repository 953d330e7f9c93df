"""The command line: one file per command, errors as messages, their exit codes for the launcher."""

import sys
from collections.abc import Sequence

from megatron_resume.errors import ResumeError
from megatron_resume.shown import shown


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, `sys.argv[1:]` when `argv` is not given; returns the exit code.

    Raises:
        SystemExit: The command, or the script that it ran, ended with one.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] == ["run"]:
            from .run import run

            run(arguments[1:])
            return 0
        from .app import parser

        args = parser().parse_args(arguments)
        code: int = args.call(args)
        return code
    except ResumeError as error:
        print(f"megatron-resume: {shown(str(error))}", file=sys.stderr, flush=True)
        return error.exit_code
