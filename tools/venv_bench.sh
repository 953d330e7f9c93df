#!/usr/bin/env bash
# Make .venv-bench with the samplers that ours is measured beside. `make bench-data` calls this, and .venv stays as it is.
# torch, Megatron and numpy are those of .venv, which one line of a .pth file adds to the import path: 5 GB less.
set -euo pipefail
cd "$(dirname "$0")/.."
pins=benchmarks/data/constraints.txt

if ! cmp -s "$pins" .venv-bench/.installed; then
    echo "make: installing grain, torchdata and Mosaic Streaming into .venv-bench (once)"
    rm -rf .venv-bench
    .venv/bin/python -m venv .venv-bench
    packages=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "$packages" >.venv-bench/lib/python3.12/site-packages/of_venv.pth
    PIP_DISABLE_PIP_VERSION_CHECK=1 .venv-bench/bin/python -m pip install --progress-bar off --quiet \
        --only-binary :all: --no-deps -r "$pins"
    cp "$pins" .venv-bench/.installed # last, so that an interrupted installation is not taken for a complete one
fi
