"""`megatron-resume run SCRIPT ARGS...` inside the job server: SCRIPT and ARGS are this job's arguments."""

import sys

from megatron_resume.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
