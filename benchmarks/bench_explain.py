"""Promise: `explain` on a folder with 100 resume points takes at most 0.3 s, from start to exit."""

import sys

from commands import measure_command
from promise import Result, main


def measure() -> Result:
    return measure_command("explain", points=100, attempts=2, promised_s=0.3)


if __name__ == "__main__":
    sys.exit(main(measure))
