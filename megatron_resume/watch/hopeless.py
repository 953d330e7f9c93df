"""Which errors would only end the next life of the job too."""

import errno

from ..errors import ResumeError
from ..policy import FATAL

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_READS_ARGUMENTS = ("parse_args", "validate_args", "validate_yaml")  # Megatron's, and the names that scripts use


def is_hopeless(error: BaseException, *, in_setup: bool) -> bool:
    """Whether no restart mends `error`: wrong configuration, something that is not there, no space.

    Args:
        in_setup: no train step is done yet. Later a missing file may be one that a cleaner took, and an assertion
            one about numbers.
    """
    if isinstance(error, ResumeError):
        return error.exit_code in FATAL
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return True
    if not in_setup:
        return False
    if isinstance(error, FileNotFoundError | NotADirectoryError | ImportError | SyntaxError):
        return True
    return isinstance(error, AssertionError | TypeError | ValueError) and _came_from_arguments(error)


def _came_from_arguments(error: BaseException) -> bool:
    trace, names = error.__traceback__, set()
    while trace is not None:
        names.add(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    return not names.isdisjoint(_READS_ARGUMENTS)
