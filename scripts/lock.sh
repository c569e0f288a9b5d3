#!/usr/bin/env bash
# Updates the lock files from pyproject.toml; needs uv (on PATH, or UV=/path/to/uv).
#
#   make lock             keeps all pins that still fit and adds new packages
#   make lock UPGRADE=1   pins the newest versions that the ranges allow
#
# One lock file holds for Linux on x86-64 and arm64 and for macOS on arm64; markers say which packages
# are for one platform only. torch is pinned, but its GPU dependencies are not: they depend on the
# machine, and `pip install torch==2.13.0`, which always runs first, has already installed them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

uv=${UV:-uv}
torch="torch==2.13.0"
command -v "$uv" >/dev/null || {
    echo "lock: uv not found: install it (pip install uv) or set UV=/path/to/uv" >&2
    exit 2
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "$torch" >"$work/constraints.txt"

for_python() { # for_python 3.11: removes pins for later versions, and markers that always hold
    local next=3.1$((${1#3.1} + 1))
    sed -E "/python_full_version >= '(${next//./\\.}|3\\.13)'/d" |
        sed -E "s/python_full_version < '(${next//./\\.}|3\\.13)' and //" |
        sed -E "s/ ; (python_full_version < '(${next//./\\.}|3\\.13)'|platform_python_implementation != 'PyPy')$//"
}

compile() { # compile 3.11 requirements/py311.lock
    # uv keeps the pins of an existing output file; 3.12 starts from those of 3.11.
    local version=$1 target=$2 draft="$work/draft.txt"
    cp "$target" "$draft" 2>/dev/null || cp requirements/py311.lock "$draft" 2>/dev/null || true
    "$uv" pip compile pyproject.toml --quiet --universal --extra analysis --extra sweeps --extra docs --extra dev --python-version "$version" \
        --constraint "$work/constraints.txt" --no-annotate --no-header --no-config \
        ${UPGRADE:+--upgrade} --output-file "$draft" >/dev/null
    {
        echo "# Exact pins for Python $version, made by \`make lock\` from pyproject.toml."
        echo "# Install $torch first, then this file; scripts/setup.sh does both."
        grep -vE '^(cuda|nvidia|triton)\b' "$draft" | for_python "$version"
    } >"$target.tmp"
    mv "$target.tmp" "$target"
    echo "$target: $(grep -c == "$target") packages"
}

mkdir -p requirements
compile 3.11 requirements/py311.lock
compile 3.12 requirements/py312.lock
