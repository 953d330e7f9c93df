"""Fuzz one target with atheris, guided by what each input reaches in the package.

with_atheris.py                       prints the names of the targets
with_atheris.py TARGET OPTIONS...     fuzzes it, with libFuzzer's options such as -max_total_time=15; 0 if it held
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["megatron_resume"]):
    from support.fuzz_targets import TARGETS, seeds


def fuzz(target: str, options: list[str]) -> None:
    """Begins from the seeds; what breaks the target is left as `crash-...`, for libFuzzer's options to name where."""
    with tempfile.TemporaryDirectory(prefix="corpus") as corpus:
        for number, seed in enumerate(seeds()[target]):
            Path(corpus, str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], *options, "-timeout=10", "-rss_limit_mb=2048", corpus], TARGETS[target])
        atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:]:
        fuzz(sys.argv[1], sys.argv[2:])
    else:
        print("\n".join(TARGETS))
