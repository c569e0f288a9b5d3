# Checks and installs the system packages that some tasks need. Sourced by setup.sh; uses its
# functions and paths.
# shellcheck shell=bash disable=SC2154

# Prints one line per package: its name (and alternative names), and what does not work without it.
system_packages() {
    cat <<'END'
libvulkan1|ManiSkill2's five tasks (SAPIEN links it)
libgl1|ManiSkill2's five tasks (OpenCV and SAPIEN link it)
libglib2.0-0 libglib2.0-0t64|ManiSkill2's five tasks (OpenCV links it)
git|MyoSuite's ten tasks, and the commit in each run's record
g++|torch.compile on the CPU; uncompiled runs do not need it
libegl1|pixel observations and videos (MUJOCO_GL=egl); state observations do not need it
END
    missing_headers
    if [ "${CI:-}" = true ]; then echo "chromium|the test that opens the report in a browser"; fi
}

# torch.compile needs Python.h, which Linux distributions put into a separate package.
missing_headers() {
    "$venv/bin/python" - 2>/dev/null <<'END' || true
import pathlib, sys, sysconfig
if not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists():
    version = "%d.%d" % sys.version_info[:2]
    print(f"python{version}-dev|torch.compile on the CPU; uncompiled runs do not need it")
END
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

can_use_apt() {
    type -p apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }
}

apt_refreshed=
apt_install() {
    if [ -z "$apt_refreshed" ]; then
        as_root apt-get update -o Acquire::Retries=1 || true # an old package list may suffice
        apt_refreshed=yes
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        -o DPkg::Lock::Timeout=120 "$@"
}

missing_packages() { # prints the lines of the packages that are not installed
    local names why name installed
    installed=$(dpkg-query -W -f='${Package} ${db:Status-Status}\n' 2>/dev/null |
        sed -n 's/ installed$//p')
    while IFS='|' read -r names why; do
        for name in $names; do
            if grep -qxF "$name" <<<"$installed"; then continue 2; fi
        done
        echo "$names|$why"
    done < <(system_packages)
}

first_names() { sed 's/[ |].*//' | tr '\n' ' ' | sed 's/ $//'; }

report_missing_packages() { # lists the missing packages and what does not work without them
    local missing names why
    if ! type -p dpkg-query >/dev/null; then return; fi
    missing=$(missing_packages)
    [ -n "$missing" ] || return 0
    say "missing system packages, and what does not work without them (all else does):"
    while IFS='|' read -r names why; do
        printf '    %-14s %s\n' "${names%% *}" "$why"
    done <<<"$missing"
    say "to install them: sudo apt-get install -y $(first_names <<<"$missing")"
}

install_missing_packages() { # never fails: the packages are optional
    local missing name
    if ! type -p dpkg-query >/dev/null; then
        say "not Debian or Ubuntu: some tasks need what these packages hold there:" \
            "$(system_packages | first_names)"
        return
    fi
    missing=$(missing_packages | first_names)
    if [ -n "$missing" ] && can_use_apt; then
        # shellcheck disable=SC2086  # one word a package
        try "installing $missing with apt" apt_install $missing || for name in $missing; do
            try "installing $name with apt" apt_install "$name" || true # may be unknown to apt
        done
    fi
    report_missing_packages
}
