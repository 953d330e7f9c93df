"""`torchrun ARGS...`, whose ranks are forked: they have imported torch already. See forked_launch.py."""

import sys

from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler
from torch.distributed.run import main

from support.programs.forked_launch import Forked

if __name__ == "__main__":
    subprocess_handler.Popen = Forked
    sys.exit(main(sys.argv[1:]))
