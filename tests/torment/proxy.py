"""A proxy before a database server that cuts connections at COMMIT, when nobody knows the outcome.

It reads the client's side of the protocol just far enough to see a COMMIT go by: messages of
PostgreSQL (https://www.postgresql.org/docs/current/protocol-message-formats.html) and packets of
MariaDB (https://mariadb.com/docs/server/reference/clientserver-protocol/0-packet). Of every other
byte it is a plain relay. No TLS, no compression.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from enum import Enum

from django.db.backends.base.base import BaseDatabaseWrapper

#: Seconds that a COMMIT which has lost its client may be on its way to the server.
DELAY = 0.3


class Cut(Enum):
    """When a connection is cut. The value says what has become of the transaction."""

    BEFORE = "COMMIT does not arrive: rolled back"
    MEANWHILE = "COMMIT arrives, and the answer finds nobody: most likely committed"
    AFTER = "the answer has come to the proxy, and goes no further: committed"
    LATE = "COMMIT arrives after the client has been cut off: committed, but not yet"


class PostgresClient:
    """What a client of PostgreSQL has said so far."""

    def __init__(self) -> None:
        self._said = b""
        self._greeted = False

    def commit_in(self, data: bytes) -> bool:
        """Take what it says next; return whether there is a COMMIT in it."""
        self._said += data
        found = False
        while True:
            kind = 1 if self._greeted else 0  # the first message has no type
            if len(self._said) < kind + 4:
                return found
            (length,) = struct.unpack_from(">I", self._said, kind)
            if len(self._said) < kind + length:
                return found
            message, self._said = self._said[: kind + length], self._said[kind + length :]
            if self._greeted and message[:1] in (b"Q", b"P"):  # a query; one that is prepared
                found = found or b"COMMIT" in message[5:].upper().replace(b"\0", b" ").split()[:2]
            self._greeted = True


class MariaClient:
    """What a client of MariaDB or MySQL has said so far."""

    def __init__(self) -> None:
        self._said = b""

    def commit_in(self, data: bytes) -> bool:
        """Take what it says next; return whether there is a COMMIT in it."""
        self._said += data
        found = False
        while len(self._said) >= 4:
            length = int.from_bytes(self._said[:3], "little")
            if len(self._said) < 4 + length:
                break
            number, body = self._said[3], self._said[4 : 4 + length]
            self._said = self._said[4 + length :]
            query = number == 0 and body[:1] == b"\x03"  # 0: a command; 3: COM_QUERY
            found = found or (query and body[1:].strip().upper() == b"COMMIT")
        return found


CLIENTS = {"postgresql": PostgresClient, "mysql": MariaClient}


class Proxy:
    """A proxy on a loopback port, a thread for each connection.

    ``share`` of the COMMITs are cut, and each takes ``delay`` seconds longer.

    Attributes:
        port: where it listens.
        commits: how many COMMITs have come by.
        cuts: how many connections were cut, and when.
    """

    def __init__(
        self, vendor: str, server_port: int, chance: random.Random, share: float, delay: float
    ) -> None:
        self._client = CLIENTS[vendor]
        self._server_port = server_port
        self._chance = chance
        self._share = share
        self._delay = delay
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._ended = False
        self.port: int = self._listening.getsockname()[1]
        self.commits = 0
        self.cuts: Counter[Cut] = Counter()

    def run(self) -> None:
        """Take connections until closed."""
        with self._listening:
            self._listening.settimeout(0.2)
            while not self._ended:
                with contextlib.suppress(OSError):  # nobody came, or is gone again
                    client, _ = self._listening.accept()
                    client.settimeout(None)
                    thread = threading.Thread(target=self._relay, args=(client,), daemon=True)
                    self._threads.append(thread)
                    thread.start()

    def close(self) -> None:
        """Cut what is left, and wait for the threads."""
        self._ended = True
        for thread in self._threads:
            thread.join(10)

    def _fate(self) -> Cut | None:
        """Decide what becomes of a COMMIT."""
        with self._lock:
            self.commits += 1
            if self._chance.random() >= self._share:
                return None
            cut = self._chance.choice(list(Cut))
            self.cuts[cut] += 1
            return cut

    def _relay(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            with socket.create_connection(("127.0.0.1", self._server_port)) as server:
                self._carry(client, server)

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        speaker = self._client()
        while not self._ended:
            readable, _, _ = select.select([client, server], [], [], 0.2)
            if server in readable:
                data = server.recv(65536)
                if not data:
                    return
                client.sendall(data)
            if client in readable:
                data = client.recv(65536)
                if not data:
                    return
                if speaker.commit_in(data):
                    cut = self._fate()
                    if cut is not None:
                        cut_off(cut, data, client, server)
                        return
                    time.sleep(self._delay)
                server.sendall(data)


def cut_off(cut: Cut, data: bytes, client: socket.socket, server: socket.socket) -> None:
    """End both connections; ``data`` ends with a COMMIT that the server has not seen yet."""
    if cut is Cut.BEFORE:
        return
    if cut is Cut.LATE:
        client.close()
        time.sleep(DELAY)
    server.sendall(data)
    if cut in (Cut.AFTER, Cut.LATE):
        server.recv(65536)


@contextlib.contextmanager
def proxy(
    connection: BaseDatabaseWrapper,
    chance: random.Random,
    *,
    share: float = 0.0,
    delay: float = 0.0,
) -> Iterator[Proxy]:
    """Have a proxy for the block, before the server of this connection."""
    port = int(connection.settings_dict["PORT"])
    between = Proxy(connection.vendor, port, chance, share, delay)
    thread = threading.Thread(target=between.run, daemon=True)
    thread.start()
    try:
        yield between
    finally:
        between.close()
        thread.join(10)


def through(between: Proxy, connection: BaseDatabaseWrapper) -> dict[str, str]:
    """Return what makes a script go through the proxy, without TLS."""
    port = connection.settings_dict["PORT"]
    url = os.environ["CARPOOL_TEST_DATABASE_URL"].replace(f":{port}/", f":{between.port}/")
    return {"CARPOOL_TEST_DATABASE_URL": url.replace("sslmode=require", "sslmode=disable")}
