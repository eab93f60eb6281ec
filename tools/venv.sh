#!/bin/sh
# Make a virtual environment and install into it:
#
#     sh tools/venv.sh FOLDER PIP-ARGUMENTS…
#
# Does nothing if the same arguments were installed there before and pyproject.toml is unchanged.
# The Python is $PYTHON, or the first of PATH that is new enough. On Debian as root, what Debian
# packages apart is installed with apt-get: venv, and what mysqlclient is compiled with.
set -eu
cd "$(dirname "$0")/.."
folder=$1
shift

say() { printf '%s\n' "$*" >&2; }

root_on_debian() {
    [ "$(id -u)" = 0 ] && [ -e /etc/debian_version ] && command -v apt-get >/dev/null
}

apt_install() {
    say "Installing $* with apt-get"
    DEBIAN_FRONTEND=noninteractive
    export DEBIAN_FRONTEND
    apt-get -q -o DPkg::Lock::Timeout=300 update >&2
    apt-get -qy -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@" >&2
}

find_python() {
    for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    say "No Python 3.11 or newer was found on PATH. Install one, or name it: PYTHON=/path/to/python3"
    return 1
}

# The environment is made anew if its Python is gone, as after an upgrade of the system.
if ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null && root_on_debian; then
        apt_install "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    fi
    say "Making $folder with $("$python" --version)"
    "$python" -m venv --clear "$folder"
    # Debian's and CPython's own pip may be too old for --group.
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
fi

stamp=$folder/installed-$(cat pyproject.toml - <<END | cksum | tr -d ' '
$PWD $*
END
)
[ -e "$stamp" ] && exit 0
say "Installing into $folder: $*"
pip_install() {
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

# mysqlclient comes as source; the rest of what we need comes as wheels.
can_compile_mysqlclient() {
    "$folder/bin/python" -c 'import MySQLdb' 2>/dev/null && return
    command -v gcc >/dev/null && pkg-config --exists libmariadb 2>/dev/null &&
        [ -e "$("$folder/bin/python" -c 'import sysconfig as s; print(s.get_path("include"))')/Python.h" ]
}
case "$*" in
*mysql*)
    if root_on_debian && ! can_compile_mysqlclient; then
        # A Python that Debian doesn't package brings its own headers.
        headers=$("$folder/bin/python" -c 'import sys
if sys.base_prefix == "/usr":
    print("python%d.%d-dev" % sys.version_info[:2])')
        # shellcheck disable=SC2086
        apt_install gcc pkg-config libmariadb-dev $headers
    fi
    ;;
esac
pip_install "$@"
touch "$stamp"
