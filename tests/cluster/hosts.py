"""Hosts that a test makes up: network namespaces, joined by a switch, whose cables it can pull.

::

    head ──┐
    left ──┼── switch        each a namespace of its own; nothing of it is seen outside
    right ─┘

A namespace lives as long as the process that holds it, which ends with this one, so nothing is left
behind however a test ends. Needs root, and iproute2 and util-linux.

https://man7.org/linux/man-pages/man7/network_namespaces.7.html
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.binaries import apt_install, is_root_on_debian
from tools.processes import end_with_parent

CLONE_NEWNET = 0x40000000

NETWORK = "10.77.0"
"""Seen only inside of the namespaces, which have no other network."""


def why_not() -> str | None:
    """Return why there can be no hosts here, or None. On Debian, install what is missing."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None and is_root_on_debian():
        apt_install(["iproute2"])
    for program in ("ip", "unshare", "nsenter"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    return None


@dataclass(frozen=True)
class Host:
    """A namespace with one cable to the switch."""

    name: str
    address: str
    holder: subprocess.Popen[bytes]
    port: str
    switch: subprocess.Popen[bytes]

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Return what runs a command there."""
        return [*entering(self.holder), *arguments]

    def cut(self) -> None:
        """Pull the cable: what is sent is lost without a word, in both directions."""
        call(*entering(self.switch), "ip", "link", "set", self.port, "down")

    def mend(self) -> None:
        """Plug it in again. Who has just failed to reach the host may do so for some seconds."""
        call(*entering(self.switch), "ip", "link", "set", self.port, "up")

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Let this thread, and what it starts, be on this host; sockets stay where they were."""
        with Path("/proc/thread-self/ns/net").open() as home:
            with Path(f"/proc/{self.holder.pid}/ns/net").open() as there:
                enter(there.fileno())
            try:
                yield
            finally:
                enter(home.fileno())


@contextlib.contextmanager
def hosts(*names: str) -> Iterator[list[Host]]:
    """Yield hosts of these names, which reach one another, and themselves as 127.0.0.1."""
    with contextlib.ExitStack() as stack:
        switch = stack.enter_context(namespace())
        inside = entering(switch)
        call(*inside, "ip", "link", "add", "switch", "type", "bridge")
        call(*inside, "ip", "link", "set", "switch", "up")
        made = []
        for number, name in enumerate(names, start=1):
            holder = stack.enter_context(namespace())
            port = f"port{number}"
            call(
                *("ip", "link", "add", "eth0", "netns", str(holder.pid), "type", "veth"),
                *("peer", "name", port, "netns", str(switch.pid)),
            )
            call(*inside, "ip", "link", "set", port, "master", "switch", "up")
            host = Host(name, f"{NETWORK}.{number}", holder, port, switch)
            call(*host.command(["ip", "link", "set", "lo", "up"]))
            call(*host.command(["ip", "address", "add", f"{host.address}/24", "dev", "eth0"]))
            call(*host.command(["ip", "link", "set", "eth0", "up"]))
            made.append(host)
        yield made


@contextlib.contextmanager
def namespace() -> Iterator[subprocess.Popen[bytes]]:
    """Yield the process that holds a new namespace."""
    home = Path("/proc/self/ns/net").readlink()
    holder = subprocess.Popen(
        ["unshare", "--net", "sleep", "infinity"], preexec_fn=end_with_parent(signal.SIGKILL)
    )
    try:
        waiting = threading.Event()
        while Path(f"/proc/{holder.pid}/ns/net").readlink() == home:
            assert holder.poll() is None, "there can be no network namespace"
            waiting.wait(0.01)
        yield holder
    finally:
        holder.kill()
        holder.wait()


def entering(holder: subprocess.Popen[bytes]) -> list[str]:
    return ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]


def enter(descriptor: int) -> None:
    """Move this thread to another network namespace; os.setns() is there from Python 3.12 on."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


@contextlib.contextmanager
def relay(address: str, port: int) -> Iterator[None]:
    """Let a server of this host that listens on 127.0.0.1 be found by others, on the same port.

    Within `Host.entered`: threads are where the one is that starts them.
    """
    with socket.create_server((address, port)) as listening:

        def accept() -> None:
            with contextlib.suppress(OSError):  # it's closed in the end
                while True:
                    outside, _ = listening.accept()
                    try:
                        inside = socket.create_connection(("127.0.0.1", port))
                    except OSError:  # the server is down
                        outside.close()
                        continue
                    for pair in ((outside, inside), (inside, outside)):
                        threading.Thread(target=pump, args=pair, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield
        listening.shutdown(socket.SHUT_RDWR)


def pump(source: socket.socket, target: socket.socket) -> None:
    """Pass on what comes, until one side ends."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
