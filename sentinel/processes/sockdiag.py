"""Listening sockets from the kernel itself (sock_diag(7)), which keeps them apart.

/proc/net/tcp lists them as well, but to reach the end of them the kernel walks its whole table of
connections, which grows with the memory of the machine: milliseconds for each look, and most where
they hurt most. Here it takes some microseconds, however many connections there are.

/proc/net/unix gives names as they are, and a name may hold a newline: whoever binds a socket there
can write rows of his own. Here a name has a length.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT_S: Final = 1.0
#: linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h, linux/unix_diag.h, net/tcp_states.h
_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_REQUEST_DUMP: Final = 0x301
_ERROR: Final = 2
_DONE: Final = 3
_LISTEN_ALONE: Final = 1 << 10
_SHOW_NAME: Final = 1
_NAME: Final = 0
_HEADER: Final = struct.Struct("=IHHII")
_TCP_REQUEST: Final = struct.Struct("=BBBBI48x")
#: family, then the sockid (port in network order, address), then rqueue and inode
_TCP_ANSWER: Final = struct.Struct("=B3x2s2x16s16x4x8x4xI4x4xI")
_UNIX_REQUEST: Final = struct.Struct("=BBHIII8x")
#: the inode; then attributes, each with its length and type
_UNIX_ANSWER: Final = struct.Struct("=4xI8x")
_ATTRIBUTE: Final = struct.Struct("=HH")
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


def listening_tcp() -> tuple[ListeningSocket, ...] | None:
    """Return what listens on TCP in our own network namespace; None when the kernel cannot tell."""
    families = (socket.AF_INET, socket.AF_INET6)
    requests = [
        _TCP_REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _LISTEN_ALONE) for family in families
    ]
    with suppress(OSError):
        return tuple(_tcp(message) for request in requests for message in _dump(request))
    return None


def listening_unix() -> tuple[ListeningSocket, ...] | None:
    """Return the Unix sockets that listen in our own network namespace.

    None when the kernel cannot tell: not every one has unix_diag.
    """
    request = _UNIX_REQUEST.pack(socket.AF_UNIX, 0, 0, _LISTEN_ALONE, 0, _SHOW_NAME)
    with suppress(OSError):
        return tuple(map(_unix, _dump(request)))
    return None


def _dump(request: bytes) -> Iterator[bytes]:
    """Ask, and yield every message up to the end of the answer; raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG) as sock:
        sock.settimeout(TIMEOUT_S)
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
                    raise OSError("the kernel has no sock_diag for these")
                yield answer[at + _HEADER.size : at + length]
                at += max(_HEADER.size, _aligned(length))


def _tcp(message: bytes) -> ListeningSocket:
    family, port, address, backlog, inode = _TCP_ANSWER.unpack_from(message)
    raw = address[:4] if family == socket.AF_INET else address
    return ListeningSocket(
        address=socket.inet_ntop(family, raw),
        port=int.from_bytes(port, "big"),
        inode=inode,
        backlog=backlog,
    )


def _unix(message: bytes) -> ListeningSocket:
    """Read one socket, spelled as in /proc/net/unix; none listens without a name (listen(2))."""
    (inode,) = _UNIX_ANSWER.unpack_from(message)
    name, at = b"", _UNIX_ANSWER.size
    while at + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, at)
        if kind == _NAME:
            name = message[at + _ATTRIBUTE.size : at + length]
        at += max(_ATTRIBUTE.size, _aligned(length))
    # abstract ones begin with a NUL, paths end with one (unix(7))
    spelled = name.replace(b"\0", b"@") if name.startswith(b"\0") else name.rstrip(b"\0")
    return ListeningSocket(address=os.fsdecode(spelled), port=0, inode=inode)


def _aligned(length: int) -> int:
    """Return where the next one begins (NLMSG_ALIGN, NLA_ALIGN)."""
    return (length + 3) & ~3
