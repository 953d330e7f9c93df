"""The command line: one file per command, errors as messages, their exit codes for the launcher."""

import io
import os
import sys
from collections.abc import Sequence

from megatron_resume.errors import ConfigError, ResumeError
from megatron_resume.shown import shown

INTERRUPTED = 130  # as shells have it: 128 and SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, `sys.argv[1:]` when `argv` is not given; returns the exit code.

    Raises:
        SystemExit: The command, or the script that it ran, ended with one.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] != ["run"]:
        return _command(arguments)
    try:
        from .run import run

        run(arguments[1:])
        return 0
    except ResumeError as error:
        return _say(error)


def _command(arguments: list[str]) -> int:
    """A command that looks at a folder: whatever stops it is said in one line, and in JSON where that was asked for."""
    _write_what_the_terminal_cannot_show_as_escapes()
    try:
        from .app import parser

        args = parser().parse_args(arguments)
        code: int = args.call(args)
        sys.stdout.flush()
        return code
    except ResumeError as error:
        return _say(error, json="--json" in arguments)
    except BrokenPipeError:  # whoever reads, as `head`, has read enough
        _drop_output()
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _say(ConfigError(f"{where}{error.strerror or error}"), json="--json" in arguments)
    except KeyboardInterrupt:
        return INTERRUPTED


def _say(error: ResumeError, *, json: bool = False) -> int:
    if json:
        from .values import as_json, text_of

        try:
            print(as_json({"error": text_of(str(error)), "exit_code": error.exit_code}), flush=True)
        except OSError:  # as where the output itself is the error
            _drop_output()
    print(f"megatron-resume: {shown(str(error))}", file=sys.stderr, flush=True)
    return error.exit_code


def _drop_output() -> None:
    """What is still to be written goes nowhere; else Python would try once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write_what_the_terminal_cannot_show_as_escapes() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
