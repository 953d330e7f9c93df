#!/usr/bin/env bash
# Make .venv-nvrx with ft_launcher 0.4.1. `make venv-nvrx` and `make test-all` call this, and .venv stays as it is:
# beside Megatron 0.19 the package breaks its imports. torch and the rest are those of .venv, which one line of a .pth
# file adds to the import path: 5 GB less.
set -euo pipefail
cd "$(dirname "$0")/.."
pins=tests/launch/constraints_nvrx.txt

if ! cmp -s "$pins" .venv-nvrx/.installed; then
    echo "make: installing ft_launcher of nvidia-resiliency-ext into .venv-nvrx (once)"
    rm -rf .venv-nvrx
    .venv/bin/python -m venv .venv-nvrx
    packages=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "$packages" >.venv-nvrx/lib/python3.12/site-packages/of_venv.pth
    PIP_DISABLE_PIP_VERSION_CHECK=1 .venv-nvrx/bin/python -m pip install --progress-bar off --quiet \
        --only-binary :all: --no-deps -r "$pins"
    cp "$pins" .venv-nvrx/.installed # last, so that an interrupted installation is not taken for a complete one
fi
