"""Run every benchmark and write benchmarks/results.json; exit 1 if a promise is broken."""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    results, broken = [], []
    for path in sorted(HERE.glob("bench_*.py")):
        done = subprocess.run([sys.executable, str(path)], stdout=subprocess.PIPE, text=True)
        if done.returncode not in (0, 1) or not done.stdout:
            raise SystemExit(f"{path.name} did not finish (exit code {done.returncode}); its error stands above")
        results.append(json.loads(done.stdout.splitlines()[-1]))
        if not results[-1]["kept"]:
            broken.append(results[-1]["name"])
    machine = {
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "megatron_core": version("megatron-core"),
        "torch": version("torch"),
    }
    target = HERE / "results.json"
    target.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")
    print(f"wrote {target}")
    if broken:
        print(f"promises that were not kept: {', '.join(broken)}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
