"""`megatron-resume ARGS...`, forked."""

import sys

from megatron_resume.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
