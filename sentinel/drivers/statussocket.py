"""The status socket: whoever may connect is told everything once, as one JSON document.

Who may connect is the file system's business: the socket is root's, or readable by one group. A
client that does not read is dropped at a deadline, and only a few are served at once, so that no
one can hold sentinel up by asking.
"""

from __future__ import annotations

import asyncio
import grp
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

CLIENTS_MAX: Final = 8
WRITE_TIMEOUT_S: Final = 2.0


class StatusSocket:
    """Serves ``document()`` on a Unix socket; *error* says why it does not, empty when it does."""

    def __init__(self, path: Path, group: str, document: Callable[[], str]) -> None:
        self.path = path
        self.error = ""
        self._group = group
        self._document = document
        self._clients = 0
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen; replaces what a killed predecessor left behind. Never raises for the world."""
        try:
            listener = self._bind()
        except (OSError, KeyError) as error:
            self.error = f"status socket {self.path}: {error}"
            return
        self._server = await asyncio.start_unix_server(self._serve, sock=listener)

    def close(self) -> None:
        """Stop listening and remove the socket."""
        if self._server is not None:
            self._server.close()
            self._server = None
            with suppress(OSError):
                self.path.unlink()

    def _bind(self) -> socket.socket:
        """Bind under another name first: nobody connects before owner and mode are right."""
        temporary = self.path.with_name(f".{self.path.name}.new")
        temporary.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(os.fspath(temporary))
            gid = grp.getgrnam(self._group).gr_gid if self._group else -1
            os.chown(temporary, -1, gid)
            temporary.chmod(0o660 if self._group else 0o600)
            temporary.replace(self.path)
        except BaseException:
            listener.close()
            raise
        listener.settimeout(0)
        return listener

    async def _serve(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._clients >= CLIENTS_MAX:
            writer.transport.abort()
            return
        self._clients += 1
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                writer.write(self._document().encode() + b"\n")
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, ConnectionError):
            writer.transport.abort()
        finally:
            self._clients -= 1
