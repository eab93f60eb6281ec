"""Give a test run or a benchmark a PostgreSQL and a MariaDB server of its own, or a broker.

From a shell, a command runs with their URLs in its environment::

    python tools/servers.py run -- python -m benchmarks create
    python tools/servers.py run --only postgres --durable -- bash
    python tools/servers.py run --redis --rabbitmq -- bash

Redis and RabbitMQ are there only if they are asked for.

From Python, a block does::

    from tools.servers import servers

    with servers() as running:
        running.urls["postgres"]  # postgres://carpool:…@127.0.0.1:40123/carpool?sslmode=require
        running.left_out          # {"mysql": "no MariaDB server is installed"}

Where a URL comes from, in this order, for each of them:

1. ``CARPOOL_TEST_POSTGRES_URL``, ``CARPOOL_TEST_MYSQL_URL``, ``CARPOOL_TEST_REDIS_URL`` or
   ``CARPOOL_TEST_RABBITMQ_URL``, used as it is.
2. A private server in a temporary folder, from installed binaries, on a free loopback port.
3. On Debian as root, the same after ``apt-get install``.
4. Nowhere: it is named in ``left_out``, with the reason. With ``CI=true`` that is an error.

Only the standard library is used, since this runs before anything is installed.

Note [The keeper]
    Servers must end however the run ends, ``kill -9`` included. So they belong to a third process,
    the keeper, which sits in a session of its own (a Ctrl-C does not reach it) and reads a pipe
    whose other end only this process holds. When this process is gone, for whatever reason, the
    pipe closes, and the keeper stops the servers and deletes the folder. Should the keeper itself
    be killed, Linux sends the servers their stop signal (``PR_SET_PDEATHSIG``).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Run as a script, this file finds only its own folder on the path.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.binaries import (
    BROKER_VARIABLES,
    URL_VARIABLES,
    VARIABLES,
    ServerError,
    provide_binaries,
)
from tools.processes import ignored_signals, run_command


@dataclass(frozen=True)
class Servers:
    """What a run got: a URL for each server, and for each one missing the reason."""

    urls: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """Return this process' environment with the URLs in it, for a subprocess."""
        return {**os.environ, **{VARIABLES[name]: url for name, url in self.urls.items()}}


@contextlib.contextmanager
def servers(
    names: Sequence[str] = ("postgres", "mysql"), *, durable: bool = False, install: bool = True
) -> Iterator[Servers]:
    """Yield the servers named, and end at the block's end those that were started for it.

    `durable` leaves the servers' settings for safe writes on, as a benchmark wants them; without
    it they never wait for the disk, which makes a test run several times faster.
    `install=False` never calls apt-get.

    Raises `ServerError` if a server that should start doesn't, and with ``CI=true`` also if one
    can't be had at all.
    """
    urls = {name: os.environ[VARIABLES[name]] for name in names if os.environ.get(VARIABLES[name])}
    left_out: dict[str, str] = {}
    to_start = []
    for name in names:
        if name in urls:
            continue
        try:
            provide_binaries(name, install=install)
        except ServerError as error:
            left_out[name] = str(error)
        else:
            to_start.append(name)
    if left_out and in_ci():
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ServerError(f"With CI=true every server must be there. {reasons}")
    if not to_start:
        yield Servers(urls, left_out)
        return
    with keeper(to_start, durable=durable) as started:
        yield Servers({**urls, **started}, left_out)


def in_ci() -> bool:
    """Whether this is a CI run, where nothing may be left out."""
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


@contextlib.contextmanager
def keeper(names: Sequence[str], *, durable: bool) -> Iterator[dict[str, str]]:
    """Start the keeper, yield its servers' URLs, and wait at the end until it has tidied up.

    See Note [The keeper].
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.keeper", *names, *(["--durable"] if durable else [])],
        cwd=Path(__file__).resolve().parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert process.stdin and process.stdout
    try:
        answer = process.stdout.readline()
        if not answer:
            raise ServerError("the keeper of the servers died; its error is above")
        reply: dict[str, Any] = json.loads(answer)
        if "error" in reply:
            raise ServerError(reply["error"])
        yield reply["urls"]
    finally:
        process.stdin.close()
        with ignored_signals(signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process.wait()
        process.stdout.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, and run a command with servers around it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a command with the servers' URLs in its environment")
    run.add_argument("--only", choices=sorted(URL_VARIABLES), action="append", metavar="NAME")
    run.add_argument("--durable", action="store_true", help="wait for the disk, for benchmarks")
    run.add_argument("argv", nargs="+", metavar="COMMAND")
    for name in BROKER_VARIABLES:
        run.add_argument(f"--{name}", action="store_true", help="with this broker, too")
    options = parser.parse_args(arguments)
    names = [*(options.only or URL_VARIABLES), *filter(vars(options).get, BROKER_VARIABLES)]
    try:
        with servers(names, durable=options.durable) as running:
            for name, reason in running.left_out.items():
                print(f"Left out: {name}: {reason}", file=sys.stderr, flush=True)
            return run_command(options.argv, running.environment())
    except ServerError as error:
        print(f"servers: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
