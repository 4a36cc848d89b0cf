"""Sockets on an interface, and which MACs on its wire are our own.

Interfaces are asked by ioctl (netdevice(7)), not in /sys, which shows the network namespace that it
was mounted in.
"""

from __future__ import annotations

import fcntl
import socket
from contextlib import ExitStack, suppress
from struct import Struct
from typing import TYPE_CHECKING, Final

from sentinel.neighbours import filters
from sentinel.neighbours.packets import mac_text

if TYPE_CHECKING:
    from sentinel.neighbours.filters import Program

ETH_P_IP: Final = 0x0800
ETH_P_ARP: Final = 0x0806
ETH_P_IPV6: Final = 0x86DD
_ARPHRD_ETHER: Final = 1
_SIOCGIFHWADDR: Final = 0x8927
#: struct ifreq: the name, then a struct sockaddr: a hardware type and its address.
_IFREQ: Final = Struct("@16sH6s16x")
_IFNAME_BYTES_MAX: Final = 15


def open_on(interface: str, protocol: int, program: Program) -> socket.socket:
    """Open a socket for the packets of *protocol* that others send to us on *interface*.

    Nothing reaches it before *program* sifts it. It does not block.

    Raises OSError: no such interface, or no CAP_NET_RAW.
    """
    with ExitStack() as refused:
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
        sock = refused.enter_context(socket.socket(socket.AF_PACKET, kind, 0))
        filters.attach(sock, program)
        sock.bind((interface, protocol))
        refused.pop_all()
    return sock


def own_mac(sock: socket.socket) -> bytes | None:
    """Return the MAC of a socket's interface; None where neighbours are not known by MACs."""
    _, _, _, hardware, mac = sock.getsockname()
    return bytes(mac) if hardware == _ARPHRD_ETHER else None


def own_macs() -> frozenset[str]:
    """Return the MACs of all interfaces of this node, of those that keepalived made as well.

    That is what tells the virtual MAC of an own instance (``use_vmac``, RFC 9568, 7.3) from the
    one of a router that has it while we do not.

    Raises OSError when no socket can be had.
    """
    found = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            raw = name.encode()[:_IFNAME_BYTES_MAX]
            with suppress(OSError):  # it has gone meanwhile
                answer = fcntl.ioctl(sock, _SIOCGIFHWADDR, _IFREQ.pack(raw, 0, b""))
                _, hardware, mac = _IFREQ.unpack(answer)
                if hardware == _ARPHRD_ETHER:
                    found.add(mac_text(mac))
    return frozenset(found)
