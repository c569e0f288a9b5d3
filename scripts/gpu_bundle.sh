#!/usr/bin/env bash
# Makes a folder with which this project runs on an offline Linux x86-64 machine with Python 3.12,
# torch 2.11 or newer and the usual scientific packages. Prints its size and the command to run there.
#
#   bash scripts/gpu_bundle.sh            writes bundle/
#   bash scripts/gpu_bundle.sh FOLDER     writes FOLDER, which must not exist
#
# The folder contains the committed code and the simulators. docs/gpu.md lists what is omitted and why.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
lock=requirements/py312.lock
max_mib=60

# Packages in the bundle, from wheels, with the pins of the lock file.
bundled=(
    attrs colorama dm-control dm-env dm-tree docopt-ng farama-notifications flatten-dict gitdb
    gitpython glfw gymnasium jsonpickle metaworld msgspec mujoco munch myosuite pink-noise-rl py-cpuinfo
    pyopengl sacred setuptools smmap submitit termcolor wrapt
)

# Packages that the offline machine must have, in any version.
provided=(
    absl-py click cloudpickle etils fsspec h5py imageio lxml numpy packaging pandas pillow protobuf psutil
    pyparsing requests rich safetensors scipy torch tqdm typing-extensions urllib3
)

# Omitted dependencies, which no training run needs: mazes of dm_control.locomotion, and videos.
# shellcheck disable=SC2034  # read by tests/test_gpu_bundle.py
omitted=(labmaze imageio-ffmpeg)

# Folders and files that no task of this project reads, relative to the folder of packages.
unused=(
    benchmarks docs tutorials myosuite_init.py # MyoSuite installs these beside itself
    dm_control/{blender,locomotion,manipulation}
    dm_control/mjcf/test_assets dm_control/mujoco/testing
    metaworld/assets/scene/textures # the tasks use metaworld/assets/textures
    mujoco/{include,introspect,testdata}
    myosuite/agents myosuite/tests myosuite/envs/myo/mjx myosuite/envs/myo/myodm/data
    myosuite/envs/myo/assets/{arm,elbow,leg,leg_soccer}
    'myosuite/envs/myo/assets/*.*' # tracks and tables of the MyoChallenge
    myosuite/simhive/{MPL_sim,YCB_sim,furniture_sim,object_sim}
    myosuite/simhive/myo_sim/{arm,body,elbow,finger,head,leg,osl,textures,torso}
    OpenGL/DLLS # Windows
)
# In these packages, a mesh or texture is removed unless a remaining XML file refers to it.
with_assets=(metaworld myosuite)

usage() {
    cat <<END
usage: bash scripts/gpu_bundle.sh [FOLDER]

Makes a folder with which this project runs on an offline Linux x86-64 machine with Python 3.12,
torch 2.11 or newer and the usual scientific packages.

  FOLDER  path, default bundle: the folder to write; it must not exist
  PYTHON  environment variable, default .venv/bin/python, else python3: the Python whose pip
          downloads the packages
END
}

say() { printf 'gpu_bundle: %s\n' "$*"; }

die() {
    printf 'gpu_bundle: %s\n' "$*" >&2
    exit 2
}

find_pip() { # sets $python to a Python with pip
    local default=python3
    [ ! -x .venv/bin/python ] || default=.venv/bin/python
    python=${PYTHON:-$default}
    "$python" -m pip --version >/dev/null 2>&1 ||
        die "$python has no pip: run make install, or set PYTHON=/path/to/python3"
}

pins() { # prints the line of each bundled package in the lock file
    local name
    for name in "${bundled[@]}"; do
        grep -m 1 "^$name==" "$lock" || die "no pin of $name in $lock: run make lock"
    done
}

download() { # download FOLDER: downloads the wheels for Linux x86-64 and Python 3.12
    pins >"$work/pins.txt"
    "$python" -m pip download --quiet --disable-pip-version-check --dest "$1" \
        --requirement "$work/pins.txt" --no-deps --only-binary :all: \
        --python-version 3.12 --implementation cp --abi cp312 --abi abi3 --abi none \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
        --platform manylinux2014_x86_64 --platform linux_x86_64 \
        >"$work/pip.log" 2>&1 </dev/null || {
        grep ERROR "$work/pip.log" >&2 || tail -n 5 "$work/pip.log" >&2
        die "pip could not download the packages: check the network and pip's settings"
    }
}

unpack() { # unpack WHEELS FOLDER
    local wheel
    mkdir -p "$2"
    for wheel in "$1"/*.whl; do "$python" -m zipfile -e "$wheel" "$2"; done
}

trim() { # trim FOLDER: removes files that no task reads from unpacked packages
    local pattern package file
    for pattern in "${unused[@]}"; do
        # shellcheck disable=SC2086  # patterns
        (cd "$1" && rm -rf $pattern)
    done
    for package in "${with_assets[@]}"; do
        { grep -rhoE 'file[a-z]*="[^"]+' --include='*.xml' "$1/$package" || true; } |
            sed 's|.*["/]||' >"$1/.named"
        find "$1/$package" -type f -regextype posix-extended \
            -iregex '.*\.(png|jpe?g|stl|obj|mtl|msh|skn)' | while read -r file; do
            grep -qxF "${file##*/}" "$1/.named" || rm "$file"
        done
    done
    rm -f "$1/.named"
}

add_metadata() { # add_metadata FOLDER: writes the project's name and version for importlib.metadata
    local version folder
    version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
    folder=$1/tdmpc2_repro-$version.dist-info
    mkdir "$folder"
    printf 'Metadata-Version: 2.1\nName: tdmpc2-repro\nVersion: %s\n' "$version" >"$folder/METADATA"
}

add_project() { # add_project FOLDER: writes the committed code and the commit's hash
    mkdir "$1"
    git archive HEAD | tar -x -C "$1"
    # Read by tdmpc2/common/run/provenance.py if there is no git repository.
    printf '{"commit": "%s", "diff": ""}\n' "$(git rev-parse HEAD)" >"$1/source.json"
}

main() {
    case ${1:-} in
        -h | --help) usage && return ;;
        -*) die "unknown option '$1': the only argument is the folder to write" ;;
    esac
    [ $# -le 1 ] || die "unexpected argument '$2': the only argument is the folder to write"
    local target growing bytes
    target=$(realpath -sm "${1:-bundle}")
    [ ! -e "$target" ] || die "$target exists: remove it, or name another folder"
    cd "$root"
    git rev-parse --quiet --verify HEAD >/dev/null 2>&1 ||
        die "$root is not a git checkout: the bundle is made from a commit"
    find_pip
    [ -z "$(git status --porcelain)" ] || say "uncommitted changes are not included"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    say "downloading ${#bundled[@]} packages (200 MB)"
    download "$work/wheels"
    unpack "$work/wheels" "$work/site"
    trim "$work/site"
    add_metadata "$work/site"
    growing=$work/bundle
    mkdir "$growing"
    tar -c --sort=name --owner=0 --group=0 --numeric-owner -C "$work" -z -f "$growing/site.tar.gz" site
    add_project "$growing/project"
    cp scripts/gpu_bundle/{env,run}.sh "$growing"
    printf '%s\n' "${provided[@]}" >"$growing/provided.txt"
    bytes=$(du -s --apparent-size --block-size=1 "$growing" | cut -f1)
    [ "$bytes" -lt $((max_mib << 20)) ] ||
        die "the bundle takes $((bytes >> 20)) MiB, more than $max_mib: extend 'unused' in this script"
    mkdir -p "$(dirname "$target")"
    mv -T "$growing" "$target"
    say "$target: $(((bytes + (1 << 19)) >> 20)) MiB, commit $(git rev-parse --short HEAD)"
    say "copy this folder to the offline machine and run there:"
    echo "bash $(basename "$target")/run.sh"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then main "$@"; fi
