#!/usr/bin/env bash
# Install megatron-core, py-spy and this package beside what is here already, none of which is replaced.
#
# The Dockerfile runs this in NVIDIA's PyTorch image, whose torch, transformer-engine and apex are built for each other.
# Elsewhere: PYTHON=/path/to/venv/bin/python docker/install.sh
#
#   PYTHON                  the interpreter to install for; python3
#   MEGATRON_CORE_VERSION, PY_SPY_VERSION    those of the Dockerfile
#   MEGATRON_CORE_EXTRAS    training
#   REQUIRE                 packages that must be here before; none
#   EXTRA_PACKAGES          more to install; none
#   MAY_CHANGE              packages that may be replaced all the same; none
set -euo pipefail
export LC_ALL=C  # comm and Python agree about the order
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
of_nvidia='^(torch|torchvision|torchaudio|triton|pytorch-triton|transformer-engine.*|apex|flash-attn.*|nvidia-.*|cuda-.*)$'

# The one place with versions is the Dockerfile; that of a torch which nobody brought is the one that tests run on.
pinned() { sed -n "s/^ARG $1=//p" "$here/Dockerfile"; }
megatron_core=${MEGATRON_CORE_VERSION:-$(pinned MEGATRON_CORE_VERSION)}
torch=$(grep '^torch==' "$here/../constraints.txt")
py_spy=${PY_SPY_VERSION:-$(pinned PY_SPY_VERSION)}
extras=${MEGATRON_CORE_EXTRAS-training}
read -r -a require <<<"${REQUIRE:-}"
read -r -a extra_packages <<<"${EXTRA_PACKAGES:-}"
read -r -a may_change <<<"${MAY_CHANGE:-}"

say() { echo "install.sh: $*" >&2; }

# "name==version" of each package here, with names as pip compares them. Metadata alone: nothing is imported.
installed() {
    "$python" - <<'PYTHON'
import re
from importlib.metadata import distributions

found = {}
for one in distributions():
    if one.metadata["Name"]:
        found.setdefault(re.sub("[-_.]+", "-", one.metadata["Name"]).lower(), one.version)
print("\n".join(sorted(f"{name}=={version}" for name, version in found.items())))
PYTHON
}

if ! "$python" -m pip --version >/dev/null 2>&1; then
    say "$python has no pip; name an interpreter that has one: PYTHON=/path/to/python"
    exit 78
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
installed >"$work/before"

for package in "${require[@]}"; do
    if ! grep -q "^$package==" "$work/before"; then
        say "$package is not installed here; use an image that brings it (BASE_IMAGE), or leave it out of REQUIRE"
        exit 78
    fi
done
for package in "${may_change[@]}"; do
    if [[ $package =~ $of_nvidia ]]; then
        say "MAY_CHANGE names $package, which is built for the CUDA of the image; use another BASE_IMAGE instead"
        exit 78
    fi
done

# Whatever is here stays: pip must live with it, or say what does not fit. Only what is asked for here may be another release.
grep -vE '^(pip|megatron-core|megatron-resume|py-spy)==' "$work/before" >"$work/constraints" || true
for package in "${may_change[@]}"; do
    sed -i "/^$package==/d" "$work/constraints"
done

# Unbounded, pip would take the newest torch there is. A constraint of its own: the check below is of what was here.
touch "$work/torch"
grep -q '^torch==' "$work/before" || echo "$torch" >"$work/torch"

# A build in the checkout would leave folders there that the next build takes for its own.
mkdir "$work/source"
cp -R "$here"/../{setup.py,pyproject.toml,README.md,LICENSE,megatron_resume} "$work/source"

# In place of the image's own PIP_CONSTRAINT, which pins what is not even installed.
export PIP_CONSTRAINT="$work/constraints $work/torch" PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
if ! "$python" -m pip install --no-cache-dir --progress-bar off \
    "megatron-core${extras:+[$extras]}==$megatron_core" "py-spy==$py_spy" "${extra_packages[@]}" "$work/source"; then
    say "pip found no set of packages that leaves what is here as it is, see above; nothing of it was replaced"
    say "another BASE_IMAGE, another version, or MAY_CHANGE=\"NAME ...\" for what may be replaced"
    exit 1
fi

# Trust is good: a package that went or changed nevertheless ends the build.
installed >"$work/after"
changed=$(comm -23 "$work/constraints" "$work/after")
if [ -n "$changed" ]; then
    say "these were replaced or removed, which must not be:"
    echo "$changed" >&2
    exit 1
fi
say "installed, beside $(wc -l <"$work/constraints") packages that are as before:"
comm -13 "$work/before" "$work/after" >&2
