"""plain.py SCRIPT ARGS...: a script on Megatron as it is, without us.

A wheel brings the index builder and no Makefile to build it with; Megatron ends where `make` fails.
"""

import sys
from pathlib import Path

from megatron.core.datasets import utils

utils.compile_helpers = lambda: None
del sys.argv[0]
sys.path[0] = str(Path(sys.argv[0]).parent)
source = compile(Path(sys.argv[0]).read_text(), sys.argv[0], "exec")
exec(source, {"__name__": "__main__", "__file__": sys.argv[0], "__builtins__": __builtins__})
