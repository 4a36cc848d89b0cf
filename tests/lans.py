"""Local networks for tests: nodes on a switch, each with a MAC and addresses that can be foreseen.

Node number N has the interface eth0 with MAC 02:00:00:00:00:0N, 192.0.2.N and 2001:db8::N.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nodes import Node, running_node

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLONE_NEWNET: Final = 0x40000000
_ETH_P_ALL: Final = 3
#: Classic BPF for tc(8), as the frame is with its Ethernet header: drop VRRP, pass the rest.
_DEAF_TO_VRRP: Final = (
    "9,40 0 0 12,21 0 2 2048,48 0 0 23,5 0 0 2,21 0 3 34525,48 0 0 20,21 0 1 112,6 0 0 2,"
    "6 0 0 4294967295"
)


def mac(number: int) -> str:
    """Return the MAC of a node."""
    return f"02:00:00:00:00:{number:02x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A node of the network."""

    number: int
    node: Node
    switch: Node

    @property
    def mac(self) -> str:
        """The MAC of its eth0."""
        return mac(self.number)

    def ip(self, *words: str) -> None:
        """Run iproute2's tool in it."""
        self.node.run("ip", *words)

    def add(self, vip: str) -> None:
        """Give it another address on eth0."""
        nodad = ("nodad",) if ":" in vip else ()
        self.ip("address", "add", vip, "dev", "eth0", *nodad)

    def remove(self, vip: str) -> None:
        """Take an address away."""
        self.ip("address", "del", vip, "dev", "eth0")


@contextmanager
def running_lan(count: int) -> Iterator[tuple[Host, ...]]:
    """Make a switch and so many nodes on it."""
    with ExitStack() as stack:
        switch = stack.enter_context(running_node())
        switch.run("ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        switch.run("ip", "link", "set", "br0", "up")
        yield tuple(_join(stack.enter_context(running_node()), switch, n + 1) for n in range(count))


def _join(node: Node, switch: Node, number: int) -> Host:
    for name in ("all", "default"):
        node.run("sh", "-c", f"echo 0 >/proc/sys/net/ipv6/conf/{name}/accept_dad")
    host = Host(number=number, node=node, switch=switch)
    _lay_cable(host, "eth0", mac(number))
    host.add(f"192.0.2.{number}/24")
    host.add(f"2001:db8::{number}/64")
    host.ip("link", "set", "eth0", "up")
    return host


def _lay_cable(host: Host, name: str, address: str) -> None:
    """Lay a cable to the switch, whose end is called as the host's and its number."""
    port = f"{name}-{host.number}"
    cable = f"{name} netns {host.node.pid} type veth peer name {port} netns {host.switch.pid}"
    subprocess.run(["ip", "link", "add", "address", address, *cable.split()], check=True)
    host.switch.run("ip", "link", "set", port, "master", "br0", "up")


@contextmanager
def second_cable(host: Host, address: str) -> Iterator[None]:
    """Give *host* a second interface on the same wire, eth1, with this MAC."""
    _lay_cable(host, "eth1", address)
    host.ip("link", "set", "eth1", "up")
    try:
        yield
    finally:
        host.ip("link", "del", "eth1")


@contextmanager
def inside(host: Host) -> Iterator[None]:
    """Be in the network of *host*: what this thread opens, and threads it starts, are there."""
    libc = ctypes.CDLL(None, use_errno=True)
    with ExitStack() as stack:
        here, there = (
            stack.enter_context(open(path, "rb"))  # noqa: PTH123  (for their descriptors)
            for path in ("/proc/thread-self/ns/net", f"/proc/{host.node.pid}/ns/net")
        )
        assert libc.setns(there.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(here.fileno(), _CLONE_NEWNET) == 0


@contextmanager
def deaf_to_vrrp(host: Host) -> Iterator[None]:
    """Let *host* lose every advert that comes in, while its own go out: a one-way loss."""
    tc = ("tc", "filter", "add", "dev", "eth0", "ingress", "bpf", "direct-action")
    host.node.run("tc", "qdisc", "add", "dev", "eth0", "ingress")
    host.node.run(*tc, "bytecode", _DEAF_TO_VRRP)
    try:
        yield
    finally:
        host.node.run("tc", "qdisc", "del", "dev", "eth0", "ingress")


@contextmanager
def capturing(host: Host) -> Iterator[socket.socket]:
    """Open a packet socket for all that comes to *host*, with the Ethernet header."""
    with inside(host):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    with sock:
        sock.bind(("eth0", _ETH_P_ALL))
        sock.settimeout(0)
        yield sock


def captured(sock: socket.socket) -> Iterator[bytes]:
    """Yield the frames that have come since the last call."""
    while True:
        try:
            frame, (_, _, kind, _, _) = sock.recvfrom(65536)
        except BlockingIOError:
            return
        if kind != socket.PACKET_OUTGOING:
            yield frame
