"""Benchmarks measure the code as it is now: they import, and none is forgotten by `make bench`."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCHMARKS.glob("bench_*.py")))
def test_a_benchmark_finds_what_it_measures(name: str) -> None:
    check = f"import {name}; assert callable({name}.measure)"
    subprocess.run([sys.executable, "-c", check], cwd=BENCHMARKS, check=True)
