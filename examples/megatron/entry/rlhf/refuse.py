"""End a start that cannot work, before any work, with the exit code that means "do not restart"."""

import sys
from typing import NoReturn

CONFIGURATION = 78  # as in megatron_resume: a restart would fail in the same way


def refuse(message: str) -> NoReturn:
    """Print what is wrong and what to type, and leave."""
    print(f"train_rlhf: {message}", file=sys.stderr, flush=True)
    raise SystemExit(CONFIGURATION)
