"""Listening TCP sockets from the kernel itself (sock_diag(7)), which keeps them apart.

/proc/net/tcp lists them as well, but to reach the end of them the kernel walks its whole table of
connections, which grows with the memory of the machine: milliseconds for each look, and most where
they hurt most. Here it takes some microseconds, however many connections there are.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT_S: Final = 1.0
#: linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h, include/net/tcp_states.h
_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_REQUEST_DUMP: Final = 0x301
_ERROR: Final = 2
_DONE: Final = 3
_LISTEN_ALONE: Final = 1 << 10
_HEADER: Final = struct.Struct("=IHHII")
_REQUEST: Final = struct.Struct("=BBBBI48x")
#: family, then the sockid (port in network order, address), then rqueue and inode
_ANSWER: Final = struct.Struct("=B3x2s2x16s16x4x8x4xI4x4xI")
_ANSWER_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ListeningSocket:
    """One socket in state LISTEN; *port* is 0 and *address* a path (or ``@name``) for Unix sockets.

    *backlog* counts connections that the kernel has accepted and the program has not.
    """

    address: str
    port: int
    inode: int
    backlog: int = 0


def listening() -> tuple[ListeningSocket, ...] | None:
    """Return what listens on TCP in our own network namespace; None when the kernel cannot tell."""
    with suppress(OSError), socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG) as sock:
        sock.settimeout(TIMEOUT_S)
        found: list[ListeningSocket] = []
        for family in (socket.AF_INET, socket.AF_INET6):
            found += _dump(sock, family)
        return tuple(found)
    return None


def _dump(sock: socket.socket, family: socket.AddressFamily) -> Iterator[ListeningSocket]:
    """Ask for one family and read to the end of the answer; raises OSError."""
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _LISTEN_ALONE)
    length = _HEADER.size + len(request)
    sock.send(_HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 0, 0) + request)
    while True:
        answer = sock.recv(_ANSWER_BYTES)
        at = 0
        while at < len(answer):
            length, kind, *_ = _HEADER.unpack_from(answer, at)
            if kind == _DONE:
                return
            if kind == _ERROR:
                raise OSError("the kernel has no sock_diag for TCP")
            yield _socket(answer, at + _HEADER.size)
            at += max(_HEADER.size, (length + 3) & ~3)


def _socket(answer: bytes, at: int) -> ListeningSocket:
    family, port, address, backlog, inode = _ANSWER.unpack_from(answer, at)
    raw = address[:4] if family == socket.AF_INET else address
    return ListeningSocket(
        address=socket.inet_ntop(family, raw),
        port=int.from_bytes(port, "big"),
        inode=inode,
        backlog=backlog,
    )
