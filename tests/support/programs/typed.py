"""A command in a shell that is forked from a pool: `python typed.py SOCKET PROGRAM ARGS...` prints and ends as it does.

SOCKET is one of a job server. A child that a signal ended has the exit code that a shell gives it.
"""

import json
import os
import socket
import sys


def main(server: str, program: str, *argv: str) -> int:
    with socket.socket(socket.AF_UNIX) as lane, lane.makefile() as answers:
        lane.connect(server)
        answers.readline()  # which process it is
        request = {"program": program, "argv": argv, "environ": dict(os.environ), "cwd": os.getcwd()}
        socket.send_fds(lane, [json.dumps(request).encode() + b"\n"], [0, 1, 2])
        answers.readline()  # that it was started
        code: int = json.loads(answers.readline())["code"]
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
