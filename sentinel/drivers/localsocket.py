"""The two Unix sockets that sentinel answers on: one tells everything, one takes orders.

Whoever connects to a *status* socket is told one JSON document. To a *control* socket he writes one
line first, and is answered with one. Who may connect is the file system's business: a socket is
root's, or one group's as well. A client that does not read or write is dropped at a deadline, and
only a few are served at once, so that no one can hold sentinel up by asking.
"""

from __future__ import annotations

import asyncio
import errno
import grp
import os
import socket
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

CLIENTS_MAX: Final = 8
WRITE_TIMEOUT_S: Final = 2.0
LINE_BYTES_MAX: Final = 4096
#: A client that ends before its line does, writes on and on, or not in UTF-8.
_NO_LINE: Final = (asyncio.IncompleteReadError, asyncio.LimitOverrunError, UnicodeDecodeError)


class LocalSocket:
    """One Unix socket; *error* says why it does not listen, or not for whom it was meant.

    One that *hears* reads a line of each client before it answers.
    """

    def __init__(self, path: Path, group: str, *, hears: bool = False) -> None:
        self.path = path
        self.error = ""
        self._group = group
        self._hears = hears
        self._clients = 0
        self._answer: Callable[[str], str] = str
        self._server: asyncio.Server | None = None
        self._inode = 0

    async def open(self, answer: Callable[[str], str]) -> None:
        """Give ``answer(line)`` to whoever connects from now on; never raises for the world.

        Replaces what a killed predecessor left behind, but nothing that somebody listens on: a dry
        run, or another sentinel with another run_dir, must not make the one that acts invisible.
        """
        self._answer = answer
        if self._server is not None:
            return
        try:
            if self._is_taken():
                raise FileExistsError(errno.EADDRINUSE, "another process listens on it")
            self.error = ""
            listener = self._bind(self._readers())
        except OSError as error:
            self.error = f"socket {self.path}: {error.strerror or error}"
            return
        self._server = await asyncio.start_unix_server(
            self._serve, sock=listener, limit=LINE_BYTES_MAX
        )

    def close(self) -> None:
        """Stop listening and remove the socket, unless another one is there by now."""
        if self._server is not None:
            self._server.close()
            self._server = None
            with suppress(OSError):
                if self.path.stat().st_ino == self._inode:
                    self.path.unlink()

    def _is_taken(self) -> bool:
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as client:
            client.settimeout(0)
            # EAGAIN: somebody listens, and has no time for more than he has (connect(2))
            return client.connect_ex(os.fspath(self.path)) in {0, errno.EAGAIN}

    def _readers(self) -> int | None:
        """Return the group that may ask; None is root alone, who asks why the others cannot."""
        if not self._group:
            return None
        try:
            return grp.getgrnam(self._group).gr_gid
        except KeyError:
            self.error = (
                f"socket {self.path}: there is no group {self._group}, so that only root may ask:"
                " create it and reload sentinel, or change status.group"
            )
            return None

    def _bind(self, gid: int | None) -> socket.socket:
        """Bind under another name first: nobody connects before owner and mode are right."""
        temporary = self.path.with_name(f".{self.path.name}.new")
        temporary.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(os.fspath(temporary))
            os.chown(temporary, -1, -1 if gid is None else gid)
            temporary.chmod(0o600 if gid is None else 0o660)
            self._inode = temporary.stat().st_ino
            temporary.replace(self.path)
        except BaseException:
            listener.close()
            temporary.unlink(missing_ok=True)
            raise
        listener.settimeout(0)
        return listener

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._clients >= CLIENTS_MAX:
            writer.transport.abort()
            return
        self._clients += 1
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                line = (await reader.readuntil()).decode() if self._hears else ""
                writer.write(self._answer(line).encode() + b"\n")
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, ConnectionError, *_NO_LINE):
            writer.transport.abort()
        finally:
            self._clients -= 1
