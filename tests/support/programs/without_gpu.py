"""without_gpu.py SCRIPT ARGS...: one rank of a script that knows nothing of machines without a GPU, on such a one.

The stand-in for CUDA lies below the script, also in the helper processes that Megatron starts: they import this file
again, as `__mp_main__`.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "examples" / "megatron"), str(ROOT)]

from cpu import stand_in  # noqa: E402

stand_in.install()

if __name__ == "__main__":
    from cpu import megatron_gaps

    megatron_gaps.fill()
    megatron_gaps.fork_the_result_queue()
    del sys.argv[0]
    script = sys.argv[0]
    # Not runpy, which would put the script in this module's place, for helper processes too.
    exec(compile(Path(script).read_text(), script, "exec"), {"__name__": "__main__", "__file__": script})
