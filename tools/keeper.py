"""The keeper: the process that owns the servers. `tools/servers.py` starts it.

It starts the servers named on its command line in a temporary folder, prints their URLs as one
line of JSON, and waits for its standard input to end. Then it stops them and deletes the folder.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any

from tools.binaries import VARIABLES, ServerError, provide_binaries
from tools.processes import end_with_parent

#: Either server is up in two seconds on two idle cores; a busy machine must not look like a hang.
START_SECONDS = 90.0

#: How long a server may take to stop before it is killed. Its data is thrown away, so killing
#: loses nothing but the tidiness of its shared memory.
STOP_SECONDS = 15.0

#: PostgreSQL's default of 100 is soon used up by a test with many threads and two databases.
MAX_CONNECTIONS = 200


@dataclass
class Server:
    """One running server process, and the signal that ends it without waiting for its clients."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    stop_signal: signal.Signals
    variables: Mapping[str, str] = field(default_factory=dict)

    def stop(self) -> None:
        """End the server; kill it if it takes too long."""
        if self.process.poll() is None:
            self.process.send_signal(self.stop_signal)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                # Each leads a session of its own, with what it has started.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


def keep(names: Sequence[str], *, durable: bool, orders: IO[str], answers: IO[str]) -> int:
    """Start servers, answer with their URLs, and hold them until `orders` is closed."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    running: list[Server] = []
    folder = None
    try:
        account = unprivileged_account()
        folder = make_folder(account)
        urls = {}
        for name in names:
            server = STARTERS[name](folder, account, durable=durable, running=running)
            urls[name] = server.url
        print(json.dumps({"urls": urls}), file=answers, flush=True)
        orders.read()
        return 0
    except ServerError as error:
        print(json.dumps({"error": str(error)}), file=answers, flush=True)
        return 1
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for server in reversed(running):
            server.stop()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def unprivileged_account() -> pwd.struct_passwd | None:
    """Return the account that servers run as when we are root: neither of them runs as root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        raise ServerError(
            "database servers refuse to run as root, and there is no user 'nobody'"
        ) from None


def make_folder(account: pwd.struct_passwd | None) -> Path:
    """Make the temporary folder in a place that `account` can reach.

    Root's TMPDIR is often private to root; and the path is kept short, since a Unix socket's may
    have 107 bytes at most.
    """
    places = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]
    for place in places:
        parents = [place.resolve(), *place.resolve().parents]
        reachable = account is None or all(parent.stat().st_mode & 0o001 for parent in parents)
        if reachable and len(str(place)) < 60:
            folder = Path(tempfile.mkdtemp(prefix="carpool-", dir=place))
            if account is not None:
                os.chown(folder, account.pw_uid, account.pw_gid)
            return folder
    raise ServerError(f"no temporary folder that {account and account.pw_name} can reach")


def identity(account: pwd.struct_passwd | None) -> dict[str, Any]:
    """Return the arguments that make `subprocess` run something as `account`."""
    if account is None:
        return {}
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def run_step(
    command: Sequence[str | Path],
    folder: Path,
    account: pwd.struct_passwd | None,
    text: str = "",
) -> None:
    """Run one step of setting a server up; on failure raise with what it printed."""
    result = subprocess.run(
        command,
        cwd=folder,
        env=server_environment(folder),
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        **identity(account),
    )
    if result.returncode:
        raise ServerError(
            f"{Path(command[0]).name} failed with exit code {result.returncode}:\n"
            f"{result.stdout[-2000:]}"
        )


def server_environment(folder: Path) -> dict[str, str]:
    """Return an environment in which no setting of the user's own reaches a server."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LC_ALL": "C.UTF-8",
    }


def launch(
    command: Sequence[str | Path],
    folder: Path,
    account: pwd.struct_passwd | None,
    *,
    log: Path,
    stop_signal: signal.Signals,
    variables: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a server process that ends when the keeper does. See Note [The keeper]."""
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            cwd=folder,
            env={**server_environment(folder), **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # This runs after the change of user, which would clear it.
            preexec_fn=end_with_parent(stop_signal),
            **identity(account),
        )


def free_port() -> int:
    """Return a loopback port that nobody listens on.

    Somebody may take it before the server does; then the server fails, and says so.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_ready(server: Server, is_ready: Callable[[], bool], log: Path) -> None:
    """Wait for the server to answer; raise with the end of its log if it ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while not is_ready():
        if server.process.poll() is not None:
            what = f"ended with exit code {server.process.returncode}"
        elif time.monotonic() > deadline:
            what = f"did not answer within {START_SECONDS:.0f} seconds"
        else:
            time.sleep(0.05)
            continue
        end = log.read_text(errors="replace")[-2000:]
        raise ServerError(f"the {server.name} server {what}; its log ends:\n{end}")


def start_postgres(
    folder: Path, account: pwd.struct_passwd | None, *, durable: bool, running: list[Server]
) -> Server:
    """Start PostgreSQL with TLS on, as it is where people run it.

    Clients connect with ``sslmode=require``: a TLS session that two processes share after a fork
    breaks at once, where a plain socket may go on for a while and give wrong answers.
    """
    binaries = provide_binaries("postgres", install=False)
    data, password, port = folder / "pg", secrets.token_hex(12), free_port()
    password_file, log = folder / "pg.password", folder / "pg.log"
    password_file.write_text(password)
    password_file.chmod(0o644)
    run_step(
        [
            binaries["initdb"],
            *("-D", data, "--username=carpool", f"--pwfile={password_file}"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"),
        ],
        folder,
        account,
    )
    password_file.unlink()
    run_step(
        [
            *(binaries["openssl"], "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"),
            *("-subj", "/CN=127.0.0.1", "-keyout", data / "server.key"),
            *("-out", data / "server.crt"),
        ],
        folder,
        account,
    )
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": folder,
        "max_connections": MAX_CONNECTIONS,
        "ssl": "on",
    }
    if not durable:
        settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    with (data / "postgresql.conf").open("a") as configuration:
        configuration.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
    run_step(
        [binaries["postgres"], "--single", "-D", data, "postgres"],
        folder,
        account,
        text="CREATE DATABASE carpool;\n",
    )
    server = Server(
        "PostgreSQL",
        f"postgres://carpool:{password}@127.0.0.1:{port}/carpool?sslmode=require",
        launch(
            [binaries["postgres"], "-D", data],
            folder,
            account,
            log=log,
            stop_signal=signal.SIGINT,  # "Fast shutdown": clients are not waited for.
        ),
        signal.SIGINT,
    )
    running.append(server)

    def is_ready() -> bool:
        command = [str(binaries["pg_isready"]), "-q", "-h", "127.0.0.1", "-p", str(port)]
        return subprocess.run(command, env=server_environment(folder)).returncode == 0

    wait_until_ready(server, is_ready, log)
    return server


def start_mariadb(
    folder: Path, account: pwd.struct_passwd | None, *, durable: bool, running: list[Server]
) -> Server:
    """Start MariaDB with an account that may create databases, as Django's test runner does."""
    binaries = provide_binaries("mysql", install=False)
    data, password, port = folder / "my", secrets.token_hex(12), free_port()
    log, first_statements = folder / "my.log", folder / "my.sql"
    run_step(
        [
            *(binaries["mariadb-install-db"], "--no-defaults", f"--datadir={data}"),
            *("--auth-root-authentication-method=normal", "--skip-test-db"),
        ],
        folder,
        account,
    )
    first_statements.write_text(
        f"ALTER USER root@localhost IDENTIFIED BY '{secrets.token_hex(12)}';\n"
        "CREATE DATABASE carpool CHARACTER SET utf8mb4;\n"
        f"CREATE USER carpool@'%' IDENTIFIED BY '{password}';\n"
        "GRANT ALL ON *.* TO carpool@'%' WITH GRANT OPTION;\n"
    )
    first_statements.chmod(0o644)
    fast = ["--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0"]
    server = Server(
        "MariaDB",
        f"mysql://carpool:{password}@127.0.0.1:{port}/carpool",
        launch(
            [
                *(binaries["mariadbd"], "--no-defaults", f"--datadir={data}"),
                *("--bind-address=127.0.0.1", f"--port={port}", f"--socket={folder / 'my.sock'}"),
                *(f"--pid-file={folder / 'my.pid'}", f"--init-file={first_statements}"),
                *(f"--max-connections={MAX_CONNECTIONS}", "--character-set-server=utf8mb4"),
                "--skip-name-resolve",
                *([] if durable else fast),
            ],
            folder,
            account,
            log=log,
            stop_signal=signal.SIGTERM,
        ),
        signal.SIGTERM,
    )
    running.append(server)

    def is_ready() -> bool:
        # The server speaks first, and only when it has carried out its --init-file.
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                return bool(connection.recv(1))
        except OSError:
            return False

    wait_until_ready(server, is_ready, log)
    first_statements.unlink()
    return server


def start_redis(
    folder: Path, account: pwd.struct_passwd | None, *, durable: bool, running: list[Server]
) -> Server:
    """Start Redis, which keeps its data in memory only, unless `durable`."""
    binaries = provide_binaries("redis", install=False)
    data, password, port = folder / "redis", secrets.token_hex(12), free_port()
    data.mkdir()
    if account is not None:
        os.chown(data, account.pw_uid, account.pw_gid)
    log = folder / "redis.log"
    server = Server(
        "Redis",
        f"redis://:{password}@127.0.0.1:{port}/0",
        launch(
            [
                *(binaries["redis-server"], "--bind", "127.0.0.1", "--port", str(port)),
                *("--dir", data, "--requirepass", password, "--save", ""),
                *("--appendonly", "yes" if durable else "no", "--appendfsync", "always"),
            ],
            folder,
            account,
            log=log,
            stop_signal=signal.SIGTERM,
        ),
        signal.SIGTERM,
    )
    running.append(server)
    wait_until_ready(server, lambda: accepts(port), log)
    return server


def start_rabbitmq(
    folder: Path, account: pwd.struct_passwd | None, *, durable: bool, running: list[Server]
) -> Server:
    """Start RabbitMQ as an Erlang node of its own, with a port mapper (epmd) of its own.

    Both, and the port by which nodes talk to one another, are on the loopback only; the cookie is
    in the folder, which is the node's home.
    """
    binaries = provide_binaries("rabbitmq", install=False)
    port, mapper_port, node_port = free_port(), free_port(), free_port()
    data, log = folder / "rabbit", folder / "rabbit.log"
    data.mkdir()
    if account is not None:
        os.chown(data, account.pw_uid, account.pw_gid)
    variables = {
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(mapper_port),
        "RABBITMQ_CONFIG_FILE": str(data / "none"),
        "RABBITMQ_CONF_ENV_FILE": str(data / "none"),
        "RABBITMQ_DIST_PORT": str(node_port),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(data / "plugins"),
        "RABBITMQ_LOG_BASE": str(data),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_MNESIA_BASE": str(data),
        "RABBITMQ_NODENAME": f"carpool-{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_PID_FILE": str(data / "pid"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
            "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none"
        ),
    }
    mapper = Server(
        "port mapper (epmd)",
        "",
        launch(
            [binaries["epmd"], "-relaxed_command_check"],
            folder,
            account,
            log=folder / "epmd.log",
            stop_signal=signal.SIGKILL,
            variables=variables,
        ),
        signal.SIGKILL,
    )
    running.append(mapper)
    wait_until_ready(mapper, lambda: accepts(mapper_port), folder / "epmd.log")
    server = Server(
        "RabbitMQ",
        f"amqp://guest:guest@127.0.0.1:{port}//",
        launch(
            [binaries["rabbitmq-server"]],
            folder,
            account,
            log=log,
            stop_signal=signal.SIGTERM,
            variables=variables,
        ),
        signal.SIGTERM,
        variables,
    )
    running.append(server)
    wait_until_ready(server, lambda: accepts(port) and b"completed with" in log.read_bytes(), log)
    return server


def accepts(port: int) -> bool:
    """Whether somebody listens on the loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


STARTERS: Mapping[str, Callable[..., Server]] = {
    "postgres": start_postgres,
    "mysql": start_mariadb,
    "redis": start_redis,
    "rabbitmq": start_rabbitmq,
}


def main() -> int:
    """Parse the command line, and keep the servers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="+", choices=sorted(VARIABLES))
    parser.add_argument("--durable", action="store_true")
    options = parser.parse_args()
    return keep(options.names, durable=options.durable, orders=sys.stdin, answers=sys.stdout)


if __name__ == "__main__":
    sys.exit(main())
