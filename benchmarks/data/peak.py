"""The memory that a stretch of work takes at its peak, beyond what the process had, as the kernel counts it (Linux)."""

import gc
from pathlib import Path

STATUS, REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak:
    """Counts from when it is made; also what numpy and torch allocate behind Python's back."""

    def __init__(self) -> None:
        gc.collect()
        REFS.write_text("5")  # the peak so far, of imports, no longer counts
        self._before = _bytes("VmRSS")

    def bytes(self) -> int:
        return max(0, _bytes("VmHWM") - self._before)


def _bytes(field: str) -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{STATUS} has no {field}; Linux is needed")
