"""The header of the PROXY protocol that a client sends first to a bind with ``accept-proxy``.

HAProxy's doc/proxy-protocol.txt says what a health check sends. Version 1, section 2.1: a valid
line filled with the connection's own addresses, because some receivers refuse UNKNOWN; that word
is left for Unix sockets, which have no other. Version 2, section 2.2: the command LOCAL, without
family and addresses. Either way the other side goes on with the real addresses of the connection.
"""

from __future__ import annotations

import socket
from typing import Final

from sentinel.config import ProxyProtocol

_V1_FAMILIES: Final = {socket.AF_INET: "TCP4", socket.AF_INET6: "TCP6"}
_V2_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V2_LOCAL: Final = _V2_SIGNATURE + b"\x20\x00\x00\x00"


def header(version: ProxyProtocol, sock: socket.socket) -> bytes:
    """Return what is sent first over *sock*; raises OSError when it is not connected."""
    if version is ProxyProtocol.NONE:
        return b""
    if version is ProxyProtocol.V2:
        return _V2_LOCAL
    family = _V1_FAMILIES.get(socket.AddressFamily(sock.family))
    if family is None:
        return b"PROXY UNKNOWN\r\n"
    source, source_port = sock.getsockname()[:2]
    target, target_port = sock.getpeername()[:2]
    return f"PROXY {family} {source} {target} {source_port} {target_port}\r\n".encode("ascii")
