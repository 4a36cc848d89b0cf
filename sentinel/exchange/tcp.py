"""The transport layer: one connected socket, on which every wait is one of the event loop's own.

A socket is closed with a single RST, as HAProxy closes its health checks (configuration manual,
``http-check connect``, ``linger``): a thousand servers probed every two seconds would otherwise
leave tens of thousands of local ports in TIME_WAIT.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sentinel.exchange.endpoint import Endpoint, SocketAddress

READ_BYTES: Final = 16 * 1024
#: A handshake is a few KB, an answer at most 80 KB; more is a server that never comes to the point.
RECEIVED_MAX_BYTES: Final = 256 * 1024
_RST_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_BACKLOG_RETRY_S: Final = 0.02


async def connect_to_first(endpoints: Sequence[Endpoint]) -> socket.socket:
    """Connect to the first endpoint that takes it; raises the last one's OSError when none does."""
    *others, last = endpoints
    for endpoint in others:
        with suppress(OSError):
            return await connect(endpoint)
    return await connect(last)


async def connect(endpoint: Endpoint) -> socket.socket:
    """Return a connected socket, the caller's to close; raises OSError."""
    family, address = endpoint
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_UNIX:
            await _connect_unix(sock, address)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _connect_unix(sock: socket.socket, address: SocketAddress) -> None:
    """Connect at once, or wait for room in a full backlog, which a Unix socket cannot poll for.

    TCP repeats its SYN by itself; here EAGAIN comes back (connect(2)), and asyncio's own
    sock_connect would take that socket for a connected one.
    """
    while True:
        try:
            sock.connect(address)
        except BlockingIOError:
            await asyncio.sleep(_BACKLOG_RETRY_S)
        else:
            return


class Plain:
    """Bytes as they are."""

    __slots__ = ("_loop", "_sock")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        """Send all of *data*; raises OSError."""
        await self._loop.sock_sendall(self._sock, data)

    async def receive(self) -> bytes:
        """Return what has come, at most READ_BYTES; empty at the end. Raises OSError."""
        return await self._loop.sock_recv(self._sock, READ_BYTES)
