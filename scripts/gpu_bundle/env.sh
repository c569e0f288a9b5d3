# Makes the packages of this bundle importable; source it in bash: . bundle/env.sh
#
# Unpacks site.tar.gz on first use. Caches, runs and packages stay inside the bundle.
# shellcheck shell=bash
bundle=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

bundle_check() { # checks the interpreter and torch; prints one line if they do not fit
    "$1" - "$bundle/provided.txt" <<'END'
import sys
from importlib.metadata import PackageNotFoundError, version


def found(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


here = "%d.%d" % sys.version_info[:2]
if here != "3.12":
    sys.exit(f"bundle: {sys.executable} is Python {here}: set PYTHON to a Python 3.12")
torch = found("torch")
if not torch:
    sys.exit(f"bundle: {sys.executable} has no torch: install torch 2.11 or newer")
if [int(number) for number in torch.split(".")[:2]] < [2, 11]:
    sys.exit(f"bundle: torch {torch} is too old: install torch 2.11 or newer")
with open(sys.argv[1]) as names:
    missing = [name for name in names.read().split() if not found(name)]
if missing:
    print(f"bundle: warning: not installed here: {', '.join(missing)}", file=sys.stderr)
END
}

bundle_unpack() { # safe if several processes unpack at once: the first to finish is kept
    [ ! -d "$bundle/site" ] || return 0
    local growing
    growing=$(mktemp -d "$bundle/.site.XXXXXX") &&
        tar -x -z -f "$bundle/site.tar.gz" -C "$growing" || return
    mv -T "$growing/site" "$bundle/site" 2>/dev/null || [ -d "$bundle/site" ] || return
    rm -rf "$growing"
}

if bundle_check "${PYTHON:-python3}" && bundle_unpack; then
    export PYTHONPATH=$bundle/project:$bundle/site${PYTHONPATH:+:$PYTHONPATH}
    export XDG_CACHE_HOME=$bundle/cache MPLCONFIGDIR=$bundle/cache/matplotlib
    # A folder for each host: compiled code depends on the CPU.
    export TORCHINDUCTOR_CACHE_DIR=$bundle/cache/inductor-$HOSTNAME
    export TRITON_CACHE_DIR=$bundle/cache/triton-$HOSTNAME
    export CUDA_CACHE_PATH=$bundle/cache/cuda TORCH_EXTENSIONS_DIR=$bundle/cache/extensions
else
    # shellcheck disable=SC2317  # sourced: return; executed: exit
    return 2 2>/dev/null || exit 2
fi
