"""The hosts that these tests make up are hosts: they reach one another until a cable is cut."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from tests.cluster.hosts import Host, hosts, why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

CONNECT = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2) as there:
    print(there.recv(100).decode())
"""


def test_hosts_reach_one_another_until_a_cable_is_cut() -> None:
    """What listens on one is found from another, not while its cable is cut, and again after."""
    with hosts("head", "left", "right") as (head, left, right):
        with head.entered(), socket.create_server((head.address, 0)) as listening:
            port = listening.getsockname()[1]

            def said_to(host: Host) -> str | None:
                command = host.command([sys.executable, "-c", CONNECT, head.address, str(port)])
                with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asking:
                    listening.settimeout(3)
                    try:
                        connection, _ = listening.accept()
                    except TimeoutError:
                        assert asking.wait(30) != 0
                        return None
                    with connection:
                        connection.sendall(b"welcome")
                    return asking.communicate(timeout=30)[0].strip()

            assert said_to(left) == "welcome"
            left.cut()
            assert said_to(left) is None
            assert said_to(right) == "welcome"
            left.mend()
            answers = (said_to(left) for _ in range(10))
            assert next(answer for answer in answers if answer is not None) == "welcome"


def test_nothing_of_it_is_seen_outside() -> None:
    """The network is the namespaces' own, and gone with them."""
    with hosts("head") as (head,):
        with head.entered(), socket.create_server((head.address, 0)) as listening:
            port = listening.getsockname()[1]
        outside = socket.socket()
        with outside, pytest.raises(OSError, match="Cannot assign requested address"):
            outside.bind((head.address, port))
