# Finds the Python from which the environment is made. Sourced by setup.sh; uses its functions and
# paths.
# shellcheck shell=bash disable=SC2154

version_of() { # version_of PYTHON: prints for example 3.11; fails if PYTHON does not run
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null </dev/null
}

is_supported() { [ "$1" = 3.11 ] || [ "$1" = 3.12 ]; }

refusal() { # refusal 3.13: prints the error message for an unsupported version
    echo "Python $1 is not supported: use Python 3.11 (all 104 tasks) or 3.12 (99 tasks, no" \
        "ManiSkill2); install python3.11 or uv, or set PYTHON=/path/to/python3.11"
}

has_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null </dev/null; }

candidates() { # prints all interpreters, the most likely ones first
    local version uv_pythons=${UV_PYTHON_INSTALL_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/uv/python}
    for version in 3.11 3.12; do
        type -ap "python$version" || true
        compgen -G "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version.*/bin/python" || true
        compgen -G "$uv_pythons/cpython-$version.*/bin/python3" || true
    done
    type -ap python3 python python3.13 python3.14 || true
}

best_of() { # best_of 3.11: prints the first that can make environments, else the first
    local python first=
    while read -r python; do
        [ "$(version_of "$python")" = "$1" ] || continue
        if has_venv "$python"; then
            echo "$python"
            return
        fi
        first=${first:-$python}
    done < <(candidates)
    [ -n "$first" ] && echo "$first"
}

find_uv() { # prints the path of an installed uv
    local uv
    for uv in "$(type -p uv)" "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv"; do
        if [ -x "$uv" ]; then
            echo "$uv"
            return
        fi
    done
    return 1
}

install_uv() { # install_uv PYTHON: installs uv in the environment's folder and prints its path
    local side=$venv/.uv
    [ -x "$side/bin/uv" ] || "$1" -m pip install --quiet --retries 1 --timeout 20 \
        --target "$side" uv >>"$log" 2>&1 </dev/null || return 1
    echo "$side/bin/uv"
}

bootstrap_uv() { # prints the path of uv; if necessary, installs it with any available Python
    find_uv && return
    local python helper=$venv/.helper
    while read -r python; do
        install_uv "$python" && return
        "$python" -m venv --clear "$helper" >>"$log" 2>&1 </dev/null || continue
        install_uv "$helper/bin/python" && return
    done < <(candidates)
    return 1
}

fetch_python() { # installs Python 3.11 with apt or uv and sets $found to it
    local uv
    if can_use_apt && try "installing python3.11 with apt" \
        apt_install python3.11 python3.11-venv; then
        found=$(best_of 3.11) && return
    fi
    uv=$(bootstrap_uv) && try "fetching Python 3.11 with uv" "$uv" python install 3.11 &&
        found=$(best_of 3.11)
}

find_python() { # sets $found, or exits with a message of one line
    local newest
    if [ -n "${PYTHON:-}" ]; then
        found=$(type -p "$PYTHON")
    else
        found=$(best_of 3.11) || found=$(best_of 3.12) || fetch_python || {
            while read -r found; do newest=$(version_of "$found") && break; done < <(candidates)
            [ -z "${newest:-}" ] || die "$(refusal "$newest")"
            die "no Python found: install python3.11 or uv, or set PYTHON=/path/to/python3.11"
        }
    fi
    has_venv "$found" && return
    local package
    package=python$(version_of "$found")-venv
    if can_use_apt; then try "installing $package with apt" apt_install "$package" || true; fi
    has_venv "$found" || die "$found cannot make environments: install $package" \
        "(sudo apt-get install -y $package), or set PYTHON to another Python 3.11"
}
