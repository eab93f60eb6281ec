#!/usr/bin/env bash
# Run the tests on the newest Django, in a Debian 13 of its own.
#
#     bash tools/next.sh [ARGUMENTS FOR PYTEST…]
#     PROGRAM=tools.django_suite bash tools/next.sh [ITS ARGUMENTS…]
#
# Debian 12's Python 3.11 stops at Django 5.2. Debian 13 has Python 3.13, PostgreSQL 17 and
# MariaDB 11.8; debootstrap puts it into a folder, and the tests run in it by chroot: Django 6.1 on
# all three databases, but for what is slow and asks little of Django (signals, pipes, terminals);
# Django 6.0, between two versions that are tested in full, what asks most of it, on SQLite and
# PostgreSQL. DJANGO=6.1 chooses one. The other program runs Django's own tests, see there.
#
# The folder is kept for the next run: $CARPOOL_TRIXIE, or carpool/trixie in the user's cache.
# Everything runs in mount and process namespaces of its own, so however a run ends, the kernel
# ends its processes and undoes its mounts.
set -euo pipefail
cd "$(dirname "$0")/.."

SUITE=trixie
PACKAGES=(
    ca-certificates gcc libmariadb-dev mariadb-client-core mariadb-server-core openssl pkg-config
    postgresql procps python3 python3-dev python3-venv redis-server
)
program=${PROGRAM:-tools.suite}
declare -A ARGUMENTS=( # of tools.suite, for each version of Django
    [6.0]="--db=sqlite --db=postgres -- --ignore=tests/acceptance --ignore=tests/torment
           --ignore=tests/executors"
    [6.1]="--db=sqlite --db=postgres --db=mysql -- --ignore=tests/torment
           --ignore=tests/acceptance/command/test_bench.py
           --ignore=tests/acceptance/command/test_hardships.py
           --ignore=tests/acceptance/test_interrupts.py --ignore=tests/acceptance/test_killing.py
           --ignore=tests/acceptance/test_memory.py --ignore=tests/acceptance/test_terminal.py"
)

root=${CARPOOL_TRIXIE:-${XDG_CACHE_HOME:-$HOME/.cache}/carpool/$SUITE}
recipe=$(cksum <<<"$SUITE ${PACKAGES[*]}")

say() { printf '%s\n' "$@"; }
on_signal() { # carry out a command and leave, with a word and the shell's exit code
    local name
    for name in INT TERM HUP; do
        # shellcheck disable=SC2064
        trap "say 'test-next: stopped by SIG$name' >&2; $1; exit $((128 + $(kill -l $name)))" $name
    done
}
cannot() {
    say "make test-next can't run here: $*" >&2
    exit 1
}

case $program in
tools.suite) needs=(--group test) venv=venv ;;
tools.django_suite) needs=(-r tests/django/requirements.txt) venv=venv-django ;;
*) cannot "PROGRAM is tools.suite or tools.django_suite." ;;
esac

# --- Outside --------------------------------------------------------------------------------------

outside() {
    [ "$(id -u)" = 0 ] || cannot "it needs root, for debootstrap and chroot."
    if ! [ -e /etc/debian_version ] || ! command -v apt-get >/dev/null; then
        cannot "it needs Debian, whose mirror and keys it uses."
    fi
    for version in ${DJANGO:-}; do
        [ "${ARGUMENTS[$version]:-}" ] || cannot "DJANGO is one of: ${!ARGUMENTS[*]}."
    done
    unshare --mount --pid --fork --mount-proc true 2>/dev/null ||
        cannot "this container may not make mount and process namespaces (it lacks CAP_SYS_ADMIN)."
    if ! command -v debootstrap >/dev/null; then
        say "Installing debootstrap with apt-get"
        export DEBIAN_FRONTEND=noninteractive
        apt-get -q -o DPkg::Lock::Timeout=300 update
        apt-get -qy -o DPkg::Lock::Timeout=300 install --no-install-recommends debootstrap
    fi
    mkdir -p "$(dirname "$root")"
    exec 9>"$root.lock"
    flock --nonblock 9 || { say "Waiting for another run in $root"; flock 9; }

    # unshare itself ignores the signals that ask it to stop. Killed, it takes along all within.
    setpriv --pdeathsig KILL -- \
        unshare --mount --pid --fork --kill-child --mount-proc --propagation private \
        bash "$0" --inside "$@" &
    namespaces=$!
    on_signal 'kill -KILL "$namespaces" 2>/dev/null'
    wait "$namespaces"
}

# --- Inside the namespaces ------------------------------------------------------------------------

host_repositories() { # as "URI RELEASE COMPONENT", whatever the format of the sources
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        sort -u
}

sources() { # the host's Debian repositories, for the other release
    local codename
    codename=$(. /etc/os-release && printf '%s' "$VERSION_CODENAME")
    host_repositories | while read -r uri release component; do
        case $release in
        "$codename" | "$codename-updates" | "$codename-security")
            [ "$component" = main ] && say "deb $uri $SUITE${release#"$codename"} main"
            ;;
        esac
    done
    return 0
}

build() {
    local new=$root.new mirror proxy script=()
    rm -rf --one-file-system "$root" "$new"
    mirror=$(sources | awk -v suite="$SUITE" '$3 == suite { print $2; exit }')
    [ -n "$mirror" ] || cannot "apt has no repository of this Debian release, so none is known."
    say "Making a Debian $SUITE in $root"
    proxy=$(apt-config dump | sed -n 's/^Acquire::http::Proxy "\(.*\)";$/\1/p')
    [ -e "/usr/share/debootstrap/scripts/$SUITE" ] || script=(/usr/share/debootstrap/scripts/sid)
    http_proxy=${http_proxy:-$proxy} debootstrap --variant=minbase "$SUITE" "$new" "$mirror" \
        "${script[@]}" >"$root.log" 2>&1 ||
        { tail -n 20 "$root.log"; cannot "debootstrap failed; its log is $root.log."; }
    rm -f "$new"/etc/apt/sources.list.d/*
    sources >"$new/etc/apt/sources.list"
    apt-config dump | grep -E '^Acquire::(https?::|Check-|Retries|Languages|ForceIPv)' \
        >"$new/etc/apt/apt.conf.d/99host" || true
    cp -r /etc/apt/auth.conf.d/. "$new/etc/apt/auth.conf.d/" 2>/dev/null || true
    # No package may start a service or make a database cluster.
    printf '#!/bin/sh\nexit 101\n' >"$new/usr/sbin/policy-rc.d"
    chmod +x "$new/usr/sbin/policy-rc.d"
    mkdir -p "$new/etc/postgresql-common/createcluster.d"
    say "create_main_cluster = false" >"$new/etc/postgresql-common/createcluster.d/none.conf"
    enter "$new"
    say "Installing ${PACKAGES[*]}"
    in_root "$new" sh -c 'apt-get -q update && apt-get -qy install --no-install-recommends "$@" &&
        apt-get clean' sh "${PACKAGES[@]}" >>"$root.log" 2>&1 ||
        { tail -n 20 "$root.log"; cannot "apt-get failed in it; its log is $root.log."; }
    leave "$new"
    printf '%s' "$recipe" >"$new/recipe"
    mv "$new" "$root"
}

enter() { # mount what programs need, and bring what they need to reach the network
    local root=$1
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev" # with /dev/shm, where multiprocessing keeps its semaphores
    mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
    cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
    mkdir -p "$root/etc/ssl/certs"
    cp -rL /etc/ssl/certs/. "$root/etc/ssl/certs/" 2>/dev/null || true
    bring_pip_configuration "$root"
}

leave() {
    umount -R "$1/tmp" "$1/dev" "$1/sys" "$1/proc"
}

bring_pip_configuration() { # pip's files, and the folders and certificates that they name
    local root=$1 file words=
    for file in /etc/pip.conf /etc/xdg/pip/pip.conf ${PIP_CONFIG_FILE:+"$PIP_CONFIG_FILE"}; do
        [ -f "$file" ] || continue
        mkdir -p "$root$(dirname "$file")"
        cp -L "$file" "$root$file"
        words+=" $(<"$file")"
    done
    for file in .pip/pip.conf .config/pip/pip.conf; do
        [ -f "$HOME/$file" ] || continue
        mkdir -p "$root/root/$(dirname "$file")"
        cp -L "$HOME/$file" "$root/root/$file"
        words+=" $(<"$HOME/$file")"
    done
    words+=" $(env | sed -nE 's/^(PIP_[A-Z_]*|SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE)=//p')"
    set -f
    # shellcheck disable=SC2086
    set -- ${words//=/ }
    set +f
    for file; do
        # The pages of an index on disk link to the packages beside it.
        case $file in file:///*/simple | file:///*/simple/) file=$(dirname "$file") ;; esac
        file=${file#file://}
        case $file in /*) ;; *) continue ;; esac
        if [ -f "$file" ]; then
            mkdir -p "$root$(dirname "$file")"
            [ "$file" -ef "$root$file" ] || cp -L "$file" "$root$file"
        elif [ -d "$file" ] && [ -z "$(ls -A "$root$file" 2>/dev/null)" ]; then
            mkdir -p "$root$file"
            mount --bind -o ro "$file" "$root$file"
        fi
    done
}

in_root() { # run a command in the folder, with no more of our environment than it needs
    local root=$1 keep=() name
    shift
    while read -r name; do
        keep+=("$name=${!name}")
    done < <(compgen -e | grep -Ei '^(PIP_.*|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|(https?|no|all)_proxy|CI|TERM|CARPOOL_TEST_LIMIT)$')
    env -i "${keep[@]}" HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        CARPOOL_TEST_COUNTS=/srv/counts \
        chroot "$root" "$@"
}

copy_project() {
    local list=(git ls-files -z --cached --others --exclude-standard)
    rm -rf "$root/srv/carpool"
    mkdir -p "$root/srv/carpool"
    if ! "${list[@]}" >/dev/null 2>&1; then
        list=(find . -name '.venv*' -prune -o -type f -print0)
    fi
    "${list[@]}" | while IFS= read -r -d '' file; do
        [ -e "$file" ] && printf '%s\0' "$file"
    done | tar --null --files-from=- -c | tar -x --no-same-owner -C "$root/srv/carpool"
}

inside() {
    on_signal :
    [ "$(cat "$root/recipe" 2>/dev/null)" = "$recipe" ] || build
    enter "$root"
    copy_project
    rm -f "$root/srv/counts"
    local failed=0 version arguments
    for version in ${DJANGO:-6.0 6.1}; do
        say "" "##### Django $version"
        arguments=
        [ "$program" != tools.suite ] || arguments=${ARGUMENTS[$version]}
        # shellcheck disable=SC2086,SC2016
        in_root "$root" sh -c '
            cd /srv/carpool && sh tools/venv.sh "$@"
        ' sh "/srv/$venv-$version" -e ".[postgres,mysql]" "${needs[@]}" "Django~=$version.0" &&
            in_root "$root" sh -c '
                cd /srv/carpool
                python=$1; shift
                "$python" -m pip list --format=freeze | grep -i ^django= && "$python" -m "$@"
            ' sh "/srv/$venv-$version/bin/python" "$program" $arguments "$@" || failed=1
    done
    local counts=$root/srv/counts
    [ -e "$counts" ] || { say "No test was executed"; say "0 0 0" >"$counts"; failed=1; }
    [ -z "${CARPOOL_TEST_COUNTS:-}" ] || cat "$counts" >>"$CARPOOL_TEST_COUNTS"
    say "" "===== all versions of Django"
    awk '{ p += $1; f += $2; s += $3 }
        END { printf "%d passed, %d failed, %d skipped\n", p, f, s }' "$counts"
    exit $failed
}

if [ "${1:-}" = --inside ]; then
    shift
    inside "$@"
else
    outside "$@"
fi
