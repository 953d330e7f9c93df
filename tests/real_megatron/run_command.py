"""`megatron-resume run SCRIPT ARGS...` inside the job server: SCRIPT and ARGS are this job's arguments."""

import sys

import megatron.core.datasets.utils

from megatron_resume.cli import main

# The helpers are built in the wheel; Megatron would run `make` for them, and the wheel has no Makefile.
megatron.core.datasets.utils.compile_helpers = lambda: None

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
