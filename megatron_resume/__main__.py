"""`python -m megatron_resume`, also as `torchrun -m megatron_resume run SCRIPT`.

Guarded, because Megatron's checkpoint writers are spawned processes that import `__main__` again; and
with private names only, because the script that `run` executes is `__main__` as well.
"""

import sys as _sys

from .cli import main as _main

if __name__ == "__main__":
    _sys.exit(_main())
