"""What it costs that the first start looks at every row of a prompt file: beside its index alone, and at later starts.

Prints JSON: `rows`, the times of the first start with the check and without it as ratios to the index alone (medians of
pairs, one after the other), and those of a later start, which finds both done.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from megatron_resume.data import JsonlPrompts

PAIRS = 5


def main() -> None:
    rows = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "prompts.jsonl")
        with file.open("w") as out:
            for row in range(rows):
                out.write(json.dumps({"prompt": f"Question {row}: " + "how much is it? " * 8, "answer": row}) + "\n")
        seconds_of(file, Path(folder, "warm"), check=True)  # what is read first is not in memory yet
        first, later = [], []
        for pair in range(PAIRS):
            alone = seconds_of(file, Path(folder, f"alone{pair}"), check=False)
            cache = Path(folder, f"checked{pair}")
            first.append(seconds_of(file, cache, check=True) / alone)
            later.append(seconds_of(file, cache, check=True) / alone)
    print(json.dumps({"rows": rows, "first": statistics.median(first), "later": statistics.median(later)}))


def seconds_of(file: Path, cache: Path, *, check: bool) -> float:
    begun = time.perf_counter()
    JsonlPrompts(file, cache_dir=cache, check=check)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
