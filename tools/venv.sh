#!/usr/bin/env bash
# Make .venv with everything that the demo and the tests need, or begin anew where that was interrupted.
# `make` calls this and leaves a stamp when it succeeded. PYTHON=... names an interpreter to use.
set -euo pipefail
cd "$(dirname "$0")/.."

# Stands while pip works: a package that was half copied looks installed to pip, so then we begin anew.
unfinished=.venv/.unfinished

is_312() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' >/dev/null 2>&1; }

# A pyenv shim may be on PATH with no version behind it, so each candidate is asked.
find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ] && ! is_312 "$PYTHON"; then
        echo "make: PYTHON=$PYTHON is not Python 3.12; looking for another" >&2
    fi
    for candidate in ${PYTHON:-} python3.12 python3 python "$HOME"/.pyenv/versions/3.12*/bin/python; do
        if is_312 "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    if command -v uv >/dev/null && candidate=$(uv python find 3.12 2>/dev/null) && is_312 "$candidate"; then
        echo "$candidate"
    fi
}

if [ -e "$unfinished" ] || ! { is_312 .venv/bin/python && .venv/bin/python -m pip --version >/dev/null 2>&1; }; then
    python=$(find_python)
    if [ -n "$python" ]; then
        echo "make: creating .venv with $("$python" --version) ($python)"
        "$python" -m venv --clear .venv
    elif command -v uv >/dev/null; then
        echo "make: creating .venv with Python 3.12, which uv downloads"
        uv venv --quiet --clear --seed --python 3.12 .venv
    else
        echo "make: no Python 3.12 was found (tried python3.12, python3, python, pyenv and uv)." >&2
        echo "make: install one (for example: pyenv install 3.12), or type: make PYTHON=/path/to/python3.12" >&2
        exit 78
    fi
fi

free_gb=$(($(df -Pk . | awk 'NR == 2 {print $4}') / 1048576))
if [ "$free_gb" -lt 7 ] && ! [ -d .venv/lib/python3.12/site-packages/torch ]; then
    echo "make: $free_gb GB are free here; .venv needs 5.3 GB, and 7 GB while it is made. Free some space." >&2
    exit 78
fi

if [ -d .venv/lib/python3.12/site-packages/megatron ]; then
    echo "make: bringing .venv up to date with setup.py and constraints.txt (seconds, if little changed)"
else
    echo "make: installing torch, Megatron and the tools into .venv (5.3 GB, 4 to 6 minutes, once)"
fi
touch "$unfinished"
export PIP_DISABLE_PIP_VERSION_CHECK=1
# `compat` adds one line to the import path; the default hook costs every process 20 ms.
if ! .venv/bin/python -m pip install --progress-bar off --quiet -c constraints.txt \
    --config-settings editable_mode=compat -e ".[megatron,dev]"; then
    echo "make: the installation failed, see above; the same command begins anew" >&2
    exit 1
fi
rm "$unfinished"
echo "make: .venv is complete"
