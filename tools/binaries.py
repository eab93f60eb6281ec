"""Find the programs of database servers and brokers; on Debian as root, install them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

URL_VARIABLES: Mapping[str, str] = {
    "postgres": "CARPOOL_TEST_POSTGRES_URL",
    "mysql": "CARPOOL_TEST_MYSQL_URL",
}

#: Started only where somebody asks for them: most tests need none.
BROKER_VARIABLES: Mapping[str, str] = {
    "redis": "CARPOOL_TEST_REDIS_URL",
    "rabbitmq": "CARPOOL_TEST_RABBITMQ_URL",
}

VARIABLES: Mapping[str, str] = {**URL_VARIABLES, **BROKER_VARIABLES}

PRODUCTS: Mapping[str, str] = {
    "postgres": "PostgreSQL",
    "mysql": "MariaDB",
    "redis": "Redis",
    "rabbitmq": "RabbitMQ",
}

#: Debian's packages for what `find_binaries` looks for. The -core package of MariaDB has the
#: server without a service; openssl makes PostgreSQL's certificate.
DEBIAN_PACKAGES: Mapping[str, Sequence[str]] = {
    "postgres": ("postgresql", "openssl"),
    "mysql": ("mariadb-server-core", "mariadb-client-core"),
    "redis": ("redis-server",),
    "rabbitmq": ("rabbitmq-server",),
}

#: What Debian's packages ask whether they may start a service; see `apt_install`.
POLICY = Path("/usr/sbin/policy-rc.d")


class ServerError(Exception):
    """A server could not be had. The message says why; where a log is of use, it holds its end."""


def find_binaries(name: str) -> dict[str, Path] | None:
    """Return the programs that the server needs by name, or None if any of them is missing."""
    if name == "postgres":
        # Debian keeps these out of PATH on purpose; of several versions the newest is taken.
        folders = sorted(
            Path("/usr/lib/postgresql").glob("*/bin"), key=debian_version, reverse=True
        )
        programs = ["initdb", "postgres", "pg_isready", "openssl"]
    elif name == "redis":
        folders = []
        programs = ["redis-server"]
    elif name == "rabbitmq":
        # What Debian has in PATH is a wrapper that changes to the user rabbitmq.
        folders = [Path("/usr/lib/rabbitmq/bin")]
        programs = ["rabbitmq-server", "epmd"]
    else:
        folders = [Path("/usr/sbin"), Path("/usr/local/sbin")]
        programs = ["mariadbd", "mariadb-install-db"]
    path = os.pathsep.join([*map(str, folders), os.environ.get("PATH", os.defpath)])
    found = {program: shutil.which(program, path=path) for program in programs}
    if None in found.values():
        return None
    return {program: Path(where) for program, where in found.items() if where}


def debian_version(folder: Path) -> int:
    """Return 15 for ``/usr/lib/postgresql/15/bin``."""
    return int(folder.parent.name) if folder.parent.name.isdigit() else 0


def provide_binaries(name: str, *, install: bool = True) -> dict[str, Path]:
    """Return what `find_binaries` finds, installing it where that is ours to do."""
    binaries = find_binaries(name)
    if binaries:
        return binaries
    product = PRODUCTS[name]
    remedy = f"install {' and '.join(DEBIAN_PACKAGES[name])}, or set {VARIABLES[name]}"
    if not (install and is_root_on_debian()):
        raise ServerError(f"no {product} server is installed ({remedy})")
    try:
        apt_install(DEBIAN_PACKAGES[name])
    except (OSError, subprocess.CalledProcessError) as error:
        raise ServerError(f"{product} could not be installed: {error} ({remedy})") from error
    binaries = find_binaries(name)
    if not binaries:
        raise ServerError(f"{product} was installed, but not where it was looked for ({remedy})")
    return binaries


def is_root_on_debian() -> bool:
    """Whether `apt_install` may work."""
    return (
        os.geteuid() == 0 and Path("/etc/debian_version").exists() and bool(shutil.which("apt-get"))
    )


def apt_install(packages: Sequence[str]) -> None:
    """Install Debian packages without a question asked and without any service started.

    PostgreSQL's package makes a cluster of its own and starts it, unless a file tells it not to;
    those of the brokers ask `POLICY` whether they may start their service. Both files are there
    only while apt-get runs; a policy that somebody else has made is left alone.
    """
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    wait_for_lock = ["-o", "DPkg::Lock::Timeout=300"]
    no_cluster = Path("/etc/postgresql-common/createcluster.d/carpool.conf")
    no_cluster.parent.mkdir(parents=True, exist_ok=True)
    no_cluster.write_text("create_main_cluster = false\n")
    own_policy = not POLICY.exists()
    if own_policy:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    print(f"Installing {' '.join(packages)} with apt-get", file=sys.stderr, flush=True)
    try:
        for command in (
            ["apt-get", *wait_for_lock, "update", "-q"],
            ["apt-get", *wait_for_lock, "install", "-qy", "--no-install-recommends", *packages],
        ):
            subprocess.run(
                command, env=environment, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr
            )
    finally:
        no_cluster.unlink(missing_ok=True)
        if own_policy:
            POLICY.unlink(missing_ok=True)
