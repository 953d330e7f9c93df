"""`python ARGS...`, forked: the script or module that they name, as the main program of this process."""

import sys

from support.programs import interpreter

if __name__ == "__main__":
    sys.exit(interpreter.execute(sys.argv[1:]))
