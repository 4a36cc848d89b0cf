"""TLS over a connected socket, by the ssl module's memory buffers.

asyncio's own TLS transport holds about 300 KB a connection in reference cycles and outlives a
cancelled handshake; here a connection is one object on the caller's stack, gone when it returns.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sentinel.exchange import certificate
from sentinel.exchange.lookup import look_up
from sentinel.exchange.tcp import RECEIVED_MAX_BYTES, Plain

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How TLS is spoken: the *server_name* of SNI and verification, and whom to trust.

    Raises ValueError for a name that cannot be sent, or *verify* without one.
    """

    server_name: str
    verify: bool = False
    ca_file: str = ""

    def __post_init__(self) -> None:
        if self.verify and not self.server_name:
            raise ValueError("verify needs a server name to compare with: set sni or host")
        try:
            self.server_name.encode("idna")
        except UnicodeError as error:
            raise ValueError(f"{self.server_name!r} is no server name: {error}") from error

    async def context(self) -> ssl.SSLContext:
        """Return the context for this trust, built once; raises OSError for a bad CA file."""
        return await look_up(self, self._read) if self.verify else _context(self.verify, "", 0)

    def _read(self) -> ssl.SSLContext:
        changed_ns = Path(self.ca_file).stat().st_mtime_ns if self.ca_file else 0
        return _context(self.verify, self.ca_file, changed_ns)


@lru_cache(maxsize=32)
def _context(verify: bool, ca_file: str, _changed_ns: int) -> ssl.SSLContext:  # noqa: FBT001  (a cache key)
    """Build a context: 20 ms and 1 MB with the system's CAs, hence the cache."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca_file:
        context.load_verify_locations(ca_file)
    else:
        context.load_default_certs()
    return context


class Secure:
    """Bytes under TLS."""

    __slots__ = ("_incoming", "_outgoing", "_plain", "_received_bytes", "_tls")

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_name: str) -> None:
        self._plain = Plain(sock)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._received_bytes = 0
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_name or None
        )

    @property
    def version(self) -> str:
        """The protocol version agreed upon, for example ``TLSv1.3``."""
        return self._tls.version() or ""

    def not_after_s(self) -> float | None:
        """Return when the certificate ends, in Unix time; None when it cannot be read."""
        der = self._tls.getpeercert(binary_form=True)
        try:
            return certificate.not_after_s(der) if der else None
        except ValueError:
            return None

    async def handshake(self) -> None:
        """Agree on keys; raises OSError (ssl.SSLError is one)."""
        await self._carry(self._tls.do_handshake)

    async def send(self, data: bytes) -> None:
        """Send all of *data*; raises OSError."""
        await self._carry(partial(self._tls.write, data))

    async def receive(self) -> bytes:
        """Return what has come; empty at the end, announced by close_notify or not."""
        try:
            return await self._carry(partial(self._tls.read, RECEIVED_MAX_BYTES))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    async def _carry(self, operation: Callable[[], T]) -> T:
        """Carry records to and fro until *operation* is through."""
        while True:
            try:
                result = operation()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._feed()
            else:
                await self._flush()
                return result

    async def _flush(self) -> None:
        if records := self._outgoing.read():
            await self._plain.send(records)

    async def _feed(self) -> None:
        records = await self._plain.receive()
        self._received_bytes += len(records)
        if self._received_bytes > RECEIVED_MAX_BYTES:
            raise ssl.SSLError(
                ssl.SSL_ERROR_SSL, f"more than {RECEIVED_MAX_BYTES} bytes of TLS records"
            )
        if records:
            self._incoming.write(records)
        else:
            self._incoming.write_eof()
