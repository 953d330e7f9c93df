"""Promise: `status` on 10,000 resume points with 100,000 model files takes at most 0.5 s, from start to exit."""

import sys

from commands import measure_command
from promise import Result, main


def measure() -> Result:
    return measure_command("status", points=10_000, attempts=10, promised_s=0.5)


if __name__ == "__main__":
    sys.exit(main(measure))
