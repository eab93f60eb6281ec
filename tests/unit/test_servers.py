"""The servers that tests and benchmarks run on: where they come from, and that they end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.waiting import wait_until
from tools import servers as module
from tools.binaries import URL_VARIABLES, VARIABLES, ServerError, find_binaries
from tools.servers import servers

ROOT = Path(__file__).resolve().parent.parent.parent

needs_postgres = pytest.mark.skipif(
    find_binaries("postgres") is None, reason="PostgreSQL is not installed"
)


@pytest.fixture(autouse=True)
def no_urls_given(monkeypatch):
    for variable in (*VARIABLES.values(), "CI"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def nothing_installed(monkeypatch):
    def refuse(name, *, install):
        raise ServerError(f"no {name}")

    monkeypatch.setattr(module, "provide_binaries", refuse)


def answers(url):
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=1).close()
    except OSError:
        return False
    return True


def start_command(*command):
    """Run a command with a PostgreSQL server around it, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "tools/servers.py", "run", "--only", "postgres", "--", *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )


def test_a_url_that_is_given_is_used_and_nothing_is_started(monkeypatch, nothing_installed):
    for name, variable in URL_VARIABLES.items():
        monkeypatch.setenv(variable, f"{name}://elsewhere/db")

    with servers() as running:
        assert running.urls == {
            "postgres": "postgres://elsewhere/db",
            "mysql": "mysql://elsewhere/db",
        }
        assert running.left_out == {}


def test_a_database_that_cannot_be_had_is_left_out_with_the_reason(nothing_installed):
    with servers(["mysql"]) as running:
        assert running.urls == {}
        assert running.left_out == {"mysql": "no mysql"}


def test_in_ci_a_database_that_cannot_be_had_is_an_error(monkeypatch, nothing_installed):
    monkeypatch.setenv("CI", "true")

    with pytest.raises(ServerError, match="no mysql"), servers(["mysql"]):
        pass


def test_a_missing_program_is_said_with_what_to_install(monkeypatch):
    monkeypatch.setattr("tools.binaries.find_binaries", lambda name: None)

    with servers(["postgres"], install=False) as running:
        assert "PostgreSQL" in running.left_out["postgres"]
        assert "CARPOOL_TEST_POSTGRES_URL" in running.left_out["postgres"]


@needs_postgres
def test_postgres_speaks_tls_and_is_gone_with_its_folder_after_the_block():
    with servers(["postgres"], install=False) as running:
        url = running.urls["postgres"]
        assert running.environment()["CARPOOL_TEST_POSTGRES_URL"] == url
        with psycopg.connect(url, autocommit=True) as connection:
            folder = connection.execute("SHOW data_directory").fetchone()
            ssl = connection.execute(
                "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            ).fetchone()
    assert ssl == (True,)
    assert not answers(url)
    assert folder is not None
    assert not Path(folder[0]).parent.exists()


@pytest.mark.skipif(find_binaries("mysql") is None, reason="MariaDB is not installed")
def test_mariadb_answers_and_is_gone_after_the_block():
    with servers(["mysql"], install=False) as running:
        url = running.urls["mysql"]
        assert answers(url)
    assert not answers(url)


@pytest.mark.skipif(find_binaries("redis") is None, reason="Redis is not installed")
def test_redis_wants_its_password_and_is_gone_after_the_block():
    with servers(["redis"], install=False) as running:
        url = running.urls["redis"]
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port), timeout=5) as connection:
            connection.sendall(b"PING\r\n")
            assert connection.recv(100).startswith(b"-NOAUTH")
            connection.sendall(f"AUTH {parts.password}\r\nPING\r\n".encode())
            assert connection.recv(100).startswith(b"+OK")
    assert not answers(url)


@pytest.mark.skipif(find_binaries("rabbitmq") is None, reason="RabbitMQ is not installed")
def test_rabbitmq_and_its_port_mapper_are_gone_after_the_block():
    with servers(["rabbitmq"], install=False) as running:
        url = running.urls["rabbitmq"]
        assert answers(url)
        family = processes_under(os.getpid())
        assert any("beam" in name for name in family.values())
        assert any("epmd" in name for name in family.values())
    assert not answers(url)
    wait_until(lambda: not any(Path(f"/proc/{process}").exists() for process in family))


def processes_under(ancestor):
    """Return the programs that descend from a process, by id."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            head, _, tail = (folder / "stat").read_text().rpartition(")")
        except OSError:
            continue
        parents[int(folder.name)] = int(tail.split()[1])
        names[int(folder.name)] = head.partition("(")[2]
    found = {}
    for process in parents:
        above = parents[process]
        while above in parents and above != ancestor:
            above = parents[above]
        if above == ancestor:
            found[process] = names[process]
    return found


def test_a_broker_is_there_only_if_it_is_asked_for(monkeypatch):
    asked = []

    @contextlib.contextmanager
    def note(names, *, durable):
        asked.append(list(names))
        yield module.Servers()

    monkeypatch.setattr(module, "servers", note)
    for flags in ([], ["--redis"], ["--only", "mysql", "--redis", "--rabbitmq"]):
        assert module.main(["run", *flags, "--", "true"]) == 0
    assert asked == [
        ["postgres", "mysql"],
        ["postgres", "mysql", "redis"],
        ["mysql", "redis", "rabbitmq"],
    ]


@needs_postgres
def test_a_block_that_raises_ends_its_servers():
    with pytest.raises(ZeroDivisionError), servers(["postgres"], install=False) as running:
        raise ZeroDivisionError
    assert not answers(running.urls["postgres"])


@needs_postgres
def test_the_commands_exit_code_is_passed_on():
    with start_command("sh", "-c", "exit 7") as process:
        process.communicate()
    assert process.returncode == 7


@needs_postgres
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_the_run_is_ended_the_server_ends(number):
    command = "import os, time; print(os.environ['CARPOOL_TEST_POSTGRES_URL'], flush=True); "
    with start_command(sys.executable, "-c", f"{command} time.sleep(600)") as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert answers(url)
        os.kill(process.pid, number)
        process.communicate()

    wait_until(lambda: not answers(url))
