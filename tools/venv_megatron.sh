#!/usr/bin/env bash
# Put each Megatron that the tests know into a folder of its own, .venv-megatron/<version>, beside the torch of .venv.
# `make megatrons` and `make test-all` call this; what is there already stays.
set -euo pipefail
cd "$(dirname "$0")/.."

versions=$(.venv/bin/python -c 'from megatron_resume.adapter.versions import TESTED; print(*TESTED)')
for version in $versions; do
    folder=.venv-megatron/$version
    [ -e "$folder" ] && continue
    echo "make: installing megatron-core $version into $folder (11 MB)"
    rm -rf "$folder.unfinished"
    PIP_DISABLE_PIP_VERSION_CHECK=1 .venv/bin/python -m pip install --progress-bar off --quiet --only-binary :all: \
        --no-deps --target "$folder.unfinished" "megatron-core==$version"
    mv "$folder.unfinished" "$folder" # last, so that an interrupted installation is not taken for a complete one
done
