"""Small servers for tests that behave as badly as asked: a real socket, and a thread to serve it.

A behaviour is a function of one accepted connection. It may block: ``Connection.hold`` returns when
the client has gone or the test is over.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

DEADLINE_S: Final = 20.0


@dataclass(slots=True)
class Connection:
    """The server's side of one connection."""

    sock: socket.socket
    over: threading.Event

    def request(self) -> str:
        """Read a request's head."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = self.sock.recv(4096)
            if not data:
                break
            head += data
        return head.decode("latin-1")

    def trickle(self, data: bytes) -> None:
        """Send one byte at a time, and time goes by in between."""
        for byte in data:
            if self.over.wait(0.02):
                break
            self.sock.sendall(bytes((byte,)))

    def flood(self, data: bytes) -> None:
        """Send *data* again and again until the client goes away."""
        while not self.over.is_set():
            self.sock.sendall(data)

    def reset(self) -> None:
        """Answer with a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def hold(self) -> None:
        """Neither send nor close while the client is there."""
        while self.sock.recv(4096):
            pass


if TYPE_CHECKING:
    from pathlib import Path

Behaviour = Callable[[Connection], None]


def answering(data: bytes) -> Behaviour:
    """Read the request and answer *data*, then close."""

    def behave(connection: Connection) -> None:
        connection.request()
        connection.sock.sendall(data)

    return behave


@contextmanager
def serving(
    behaviour: Behaviour, *, tls: ssl.SSLContext | None = None, path: Path | None = None
) -> Iterator[str]:
    """Serve one connection after another, on loopback or at *path*, and hand out the address."""
    over = threading.Event()
    with _listening(path) as listener:

        def serve() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:  # the listener was shut down: the test is over
                    return
                sock.settimeout(DEADLINE_S)
                with suppress(OSError):  # what the client does to us is its own affair
                    sock = tls.wrap_socket(sock, server_side=True) if tls else sock
                    behaviour(Connection(sock, over))
                sock.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield str(path) if path else f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(DEADLINE_S)
            assert not thread.is_alive(), "the behaviour does not end"


def _listening(path: Path | None) -> socket.socket:
    if path is None:
        return socket.create_server(("127.0.0.1", 0))
    return socket.create_server(str(path), family=socket.AF_UNIX)


def tls_context(file: Path) -> ssl.SSLContext:
    """Return a server's context for a PEM file with certificate and key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
