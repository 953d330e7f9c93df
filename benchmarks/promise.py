"""What every benchmark shares: it measures in fresh processes, and compares with what is promised."""

import compileall
import importlib.util
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """One measured promise; `ratio` above 1 breaks it."""

    name: str
    measured: float
    promised: float
    unit: str
    samples: list[float]
    beside: dict[str, float]  # what it is to be compared with, in the same unit

    @property
    def ratio(self) -> float:
        return self.measured / self.promised

    @property
    def kept(self) -> bool:
        return self.ratio <= 1


def result(name: str, samples: Sequence[float], promised: float, unit: str, **beside: float) -> Result:
    """The result of `samples`, of which the median counts; the fastest shows what a quiet machine gives."""
    rounded = [round(sample, 4) for sample in samples]
    beside = {"fastest": min(rounded), **beside}
    return Result(name, round(statistics.median(samples), 4), promised, unit, rounded, beside)


def compile_package() -> None:
    """Give our package its bytecode: an installed one has it, an editable one may not."""
    spec = importlib.util.find_spec("megatron_resume")
    assert spec is not None
    assert spec.origin is not None
    compileall.compile_dir(Path(spec.origin).parent, quiet=1)


def fresh_process(*arguments: str) -> str:
    """What a new Python prints on standard output."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def main(measure: Callable[[], Result]) -> int:
    """Print one line for people, then JSON on the last line; exit 1 if the promise is broken."""
    found = measure()
    beside = "".join(f", {name.replace('_', ' ')} {value:g} {found.unit}" for name, value in found.beside.items())
    verdict = "kept" if found.kept else "BROKEN"
    line = f"{found.name}: {found.measured:g} {found.unit}, promised {found.promised:g} {found.unit}"
    print(f"{line} (ratio {found.ratio:.2f}, {verdict}{beside})", file=sys.stderr)
    print(json.dumps({**asdict(found), "ratio": round(found.ratio, 3), "kept": found.kept}))
    return 0 if found.kept else 1
