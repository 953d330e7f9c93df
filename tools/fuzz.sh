#!/usr/bin/env bash
# Fuzz the readers of tests/support/fuzz_targets.py for about 2 minutes: with atheris, in a .venv-fuzz of its own, or, where
# that cannot be installed, by a longer run of the Hypothesis tests of the same targets.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${FUZZ_SECONDS:-12} # for each target

install() {
    [ -e .venv-fuzz/.installed ] && return
    echo "make: installing atheris into .venv-fuzz (once)"
    rm -rf .venv-fuzz
    .venv/bin/python -m venv .venv-fuzz || return
    PIP_DISABLE_PIP_VERSION_CHECK=1 .venv-fuzz/bin/python -m pip install --quiet --only-binary :all: \
        -c constraints.txt atheris==3.1.0 msgspec numpy PyYAML safetensors || return
    touch .venv-fuzz/.installed
}

if install; then
    for target in $(PYTHONPATH=tests:. .venv-fuzz/bin/python -B tests/fuzz/with_atheris.py); do
        echo "make: $target, $seconds s"
        PYTHONPATH=tests:. .venv-fuzz/bin/python -B tests/fuzz/with_atheris.py "$target" -max_total_time="$seconds" -verbosity=0 -artifact_prefix=.venv-fuzz/
    done
    echo "make: no target broke"
else
    echo "make: atheris cannot be installed here, see above; Hypothesis tries the same targets"
    FUZZ_EXAMPLES=${FUZZ_EXAMPLES:-2000} .venv/bin/python -m pytest -q tests/fuzz
fi
