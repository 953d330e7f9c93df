#!/usr/bin/env bash
# Make .venv-dlc with the SDK of Alibaba PAI-DLC, whose fields the rendered snippet uses. `make venv-dlc` and
# `make test-all` call this, and .venv stays as it is.
set -euo pipefail
cd "$(dirname "$0")/.."
sdk=alibabacloud_pai_dlc20201203==1.11.6

if [ "$(cat .venv-dlc/.installed 2>/dev/null)" != "$sdk" ]; then
    echo "make: installing $sdk into .venv-dlc (once)"
    rm -rf .venv-dlc
    .venv/bin/python -m venv .venv-dlc
    PIP_DISABLE_PIP_VERSION_CHECK=1 .venv-dlc/bin/python -m pip install --progress-bar off --quiet "$sdk"
    echo "$sdk" >.venv-dlc/.installed # last, so that an interrupted installation is not taken for a complete one
fi
