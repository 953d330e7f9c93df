"""A command in a shell that is forked from a pool: `python typed.py POOL PROGRAM ARGS...` has its output and exit code.

POOL is the folder of a job server. A child that a signal ended has the exit code that a shell gives it.
"""

import json
import os
import socket
import sys


def main(pool: str, program: str, *argv: str) -> int:
    with socket.socket(socket.AF_UNIX) as lane, lane.makefile() as answers:
        lane.connect(os.path.join(pool, "torch"))
        answers.readline()  # which process it is
        request = {"program": program, "argv": argv, "environ": dict(os.environ), "cwd": os.getcwd()}
        socket.send_fds(lane, [json.dumps(request).encode() + b"\n"], [0, 1, 2])
        answers.readline()  # that it was started
        code: int = json.loads(answers.readline())["code"]
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
