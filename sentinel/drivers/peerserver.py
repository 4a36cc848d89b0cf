"""The peer's endpoint: whoever asks ``GET /`` over HTTP/1.1 is told one JSON document.

It is read-only and has no secrets: who may reach it is the network's business. Nobody can hold
sentinel up by asking: a request is bounded in time and size, only a few clients are served at once
and others are turned away, and every connection is closed after one answer. HTTP is spoken as far
as one request line needs it (RFC 9112, section 3); header fields are not looked at.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Final

from sentinel.address import read_listen

CLIENTS_MAX: Final = 8
REQUEST_MAX_BYTES: Final = 4 * 1024
CLIENT_TIMEOUT_S: Final = 2.0
RETRY_S: Final = 1.0
#: Both are of ip(7) and ipv6(7), and not in Python's socket module.
_FREEBIND: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, 15),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 78),
}


class PeerServer:
    """One listener; *error* says why it does not listen, empty while it does.

    Raises ValueError when *listen* is no numeric ``HOST:PORT`` or ``[IPv6]:PORT``.
    """

    def __init__(self, listen: str) -> None:
        self.listen = listen
        self.error = ""
        self._address = read_listen(listen)
        self._clients = 0

    async def run(self, document: Callable[[], str]) -> None:
        """Give ``document()`` to whoever asks, until cancelled; never raises for the world."""
        listener = await self._listener()
        serve = partial(self._serve, document)
        server = await asyncio.start_server(
            serve,
            sock=listener,
            limit=REQUEST_MAX_BYTES,
            backlog=CLIENTS_MAX,
            start_serving=False,
        )
        try:
            await server.start_serving()
            await asyncio.Event().wait()  # for being cancelled
        finally:
            server.close()

    async def _listener(self) -> socket.socket:
        """Listen as soon as that is possible: whoever has the port now may go away."""
        while True:
            try:
                listener = self._bind()
            except OSError as error:
                self.error = f"peer endpoint {self.listen}: {error.strerror or error}"
                await asyncio.sleep(RETRY_S)
            else:
                self.error = ""
                return listener

    def _bind(self) -> socket.socket:
        """Bind, also to an address that this node does not have yet: it may come with a link."""
        ((family, kind, _, _, place),) = socket.getaddrinfo(
            self._address.host,
            self._address.port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_NUMERICHOST,
        )
        listener = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(*_FREEBIND[family], 1)
            listener.bind(place)
            listener.listen(CLIENTS_MAX)
        except BaseException:
            listener.close()
            raise
        return listener

    async def _serve(
        self,
        document: Callable[[], str],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        if self._clients >= CLIENTS_MAX:
            writer.transport.abort()
            return
        self._clients += 1
        try:
            with suppress(OSError):  # the deadline is one, too
                async with asyncio.timeout(CLIENT_TIMEOUT_S):
                    writer.write(await _answer(reader, document))
                    await writer.drain()
                    writer.close()
                    await writer.wait_closed()
        finally:
            self._clients -= 1
            writer.transport.abort()


async def _answer(reader: asyncio.StreamReader, document: Callable[[], str]) -> bytes:
    """Read one request and answer it; who goes away before its end gets nothing."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    except asyncio.LimitOverrunError:
        return _response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    match head.partition(b"\r\n")[0].split(b" "):
        case (b"GET" | b"HEAD" as method, b"/", b"HTTP/1.1" | b"HTTP/1.0"):
            whole = _response(HTTPStatus.OK, f"{document()}\n".encode())
            return whole if method == b"GET" else whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        case (_, b"/", b"HTTP/1.1" | b"HTTP/1.0"):
            return _response(HTTPStatus.METHOD_NOT_ALLOWED)
        case (_, _, b"HTTP/1.1" | b"HTTP/1.0"):
            return _response(HTTPStatus.NOT_FOUND)
        case _:
            return _response(HTTPStatus.BAD_REQUEST)


def _response(status: HTTPStatus, body: bytes = b"") -> bytes:
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    if status is HTTPStatus.OK:
        lines.append("Content-Type: application/json")
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: GET, HEAD")  # RFC 9110, section 15.5.6
    return "\r\n".join([*lines, "", ""]).encode() + body
