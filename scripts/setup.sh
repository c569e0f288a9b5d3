#!/usr/bin/env bash
# Sets up the project in .venv with the pinned packages; does nothing if nothing has changed.
#
#   bash scripts/setup.sh                            uses Python 3.11, else 3.12, else installs 3.11
#   PYTHON=/path/to/python3.11 bash scripts/setup.sh
#   TORCH_INDEX_URL=… bash scripts/setup.sh          takes torch from another package index
#
# If it was interrupted, the same command continues. The output of pip and apt is in .venv/setup.log.
set -euo pipefail
case ${PYTHON:-} in */*) PYTHON=$(realpath -sm "$PYTHON") ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/system_packages.sh
source scripts/find_python.sh

venv=$PWD/.venv
log=$venv/setup.log
stamp=$venv/.setup-stamp
project=".[dmcontrol,metaworld,myosuite,maniskill2,analysis,sweeps,docs,dev]"

say() { printf 'setup: %s\n' "$*"; }

die() {
    printf 'setup: %s\n' "$*" >&2
    exit 2
}

# try WHAT COMMAND...: runs the command with its output in the log; prints WHAT and the seconds.
try() {
    local what=$1 start=$SECONDS
    shift
    printf 'setup: %s ... ' "$what"
    printf '\n### %s\n' "$*" >>"$log"
    if "$@" >>"$log" 2>&1 </dev/null; then
        printf '%d s\n' $((SECONDS - start))
    else
        printf 'failed after %d s\n' $((SECONDS - start))
        return 1
    fi
}

# step WHAT COMMAND...: like try, but a failure prints the end of the log and exits.
step() {
    try "$@" && return
    tail -n 40 "$log" >&2
    die "could not finish: $1; the whole log is in $log"
}

venv_version() { # prints the Python version of .venv; fails if it is missing or was moved here
    grep -qF "$venv" "$venv/bin/activate" 2>/dev/null && version_of "$venv/bin/python"
}

lock_for() { echo "requirements/py${1//./}.lock"; }

checksum() { # macOS has shasum instead
    if type -p sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -d' ' -f1
}

current_key() { # current_key 3.11: prints a key that changes with the inputs of the environment
    echo "$(cat pyproject.toml "$(lock_for "$1")" | checksum)" \
        "$("$venv/bin/python" -c 'import platform; print(platform.python_version())') $venv"
}

up_to_date() {
    local version
    [ -f "$stamp" ] && version=$(venv_version) && is_supported "$version" || return 1
    [ "$(cat "$stamp")" = "$(current_key "$version")" ]
}

check_wanted_python() { # checks that $PYTHON, if set, fits the project and an existing .venv
    [ -n "${PYTHON:-}" ] || return 0
    local wanted present
    wanted=$(version_of "$PYTHON") || die "PYTHON=$PYTHON does not run"
    is_supported "$wanted" || die "$(refusal "$wanted")"
    present=$(venv_version) && [ "$present" != "$wanted" ] || return 0
    die "PYTHON is $wanted but .venv holds Python $present: remove .venv, then run this again"
}

warn_of_torch() { # says that the torch that .venv has is kept
    [ -z "${TORCH_INDEX_URL:-}" ] || say "TORCH_INDEX_URL has no effect on the torch that .venv" \
        "has: to replace it, remove .venv, then run this again"
}

has_usable_venv() {
    local version
    version=$(venv_version) && is_supported "$version" &&
        "$venv/bin/python" -m pip --version >/dev/null 2>&1
}

make_venv() { # make_venv PYTHON
    say "Python $(version_of "$1") at $1"
    find "$venv" -mindepth 1 ! -path "$log" ! -path "$venv/.uv*" -delete
    step "creating .venv" "$1" -m venv "$venv"
}

# An interrupted installation leaves a .dist-info without its last two files. If it is not removed,
# pip regards an incomplete package as installed.
drop_half_installed() {
    local info
    for info in "$venv"/lib/python*/site-packages/*.dist-info; do
        if [ ! -f "$info/RECORD" ] || [ ! -f "$info/INSTALLER" ]; then rm -rf "$info"; fi
    done
    rm -rf "$venv"/lib/python*/site-packages/~*
}

install_packages() { # install_packages requirements/py311.lock
    local lock=$1 pip=("$venv/bin/python" -m pip) install torch count uv
    torch=$(grep '^torch==' "$lock")
    count=$(grep -c == "$lock")
    drop_half_installed
    # pip regards version 2.13.0+cpu as 2.13.0
    if compgen -G "$venv/lib/python*/site-packages/torch-${torch#torch==}[.+]*" >/dev/null; then
        warn_of_torch
    fi
    # Installed with pip, before the packages that depend on it: pip uses the wheel sources that are
    # configured on this machine.
    step "installing $torch" env ${TORCH_INDEX_URL:+PIP_INDEX_URL="$TORCH_INDEX_URL"} \
        "${pip[@]}" install "$torch"
    # uv is several times faster than pip, but optional.
    uv=$(find_uv || install_uv "$venv/bin/python") || uv=
    install=(env ${PIP_INDEX_URL:+UV_DEFAULT_INDEX="$PIP_INDEX_URL"} "$uv" --no-config pip install
        --python "$venv/bin/python")
    # Compiled to bytecode at once, as pip does: else each process would compile what it imports if
    # bytecode cannot be written (PYTHONDONTWRITEBYTECODE, a read-only image).
    if [ -z "$uv" ] || ! try "installing $count pinned packages with uv" "${install[@]}" \
        --compile-bytecode -r "$lock"
    then
        drop_half_installed
        install=("${pip[@]}" install)
        step "installing $count pinned packages with pip" "${install[@]}" -r "$lock"
    fi
    # In this mode, a folder named tdmpc2 in the current folder does not hide the package.
    step "installing the project in editable mode" "${install[@]}" --no-index \
        --no-build-isolation --config-settings editable_mode=compat --editable "$project"
    step "checking that all versions fit together" "${pip[@]}" check
}

main() {
    local version
    check_wanted_python
    if up_to_date; then
        warn_of_torch
        report_missing_packages
        say "up to date: .venv, Python $(venv_version)"
        return
    fi
    mkdir -p "$venv"
    exec 9<"$PWD"
    # A second setup of the same folder waits for the first; macOS has no flock.
    if type -p flock >/dev/null; then flock 9; fi
    if up_to_date; then return; fi
    rm -f "$stamp"
    if ! has_usable_venv; then
        find_python # sets $found, or exits
        make_venv "$found"
    fi
    install_missing_packages
    version=$(venv_version)
    [ "$version" != 3.12 ] || say "Python 3.12: ManiSkill2's five tasks are off (sapien has no" \
        "wheel for it); the other 99 run. For all 104: install Python 3.11, remove .venv, run again"
    install_packages "$(lock_for "$version")"
    current_key "$version" >"$stamp.tmp"
    mv "$stamp.tmp" "$stamp" # last, so that it exists only after a complete setup
    say "ready: .venv, Python $version ($SECONDS s)"
}

main
