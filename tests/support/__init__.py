"""What several tests share: jobs on disk, runs of real Megatron, and the programs that they start."""

import os
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
PROGRAMS = TESTS / "support" / "programs"


def finds_support() -> dict[str, str]:
    """The environment of a process that imports this package, too."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])}
