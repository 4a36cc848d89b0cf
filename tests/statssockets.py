"""Fake stats sockets: what HAProxy would say, or what it says when it is ill."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

RECORDED = Path(__file__).parent / "data" / "runtimeapi"


def recorded(name: str) -> str:
    """Return an answer as some version of HAProxy gives it."""
    return (RECORDED / f"{name}.txt").read_text()


@asynccontextmanager
async def stats_socket(
    folder: Path, answer: str | bytes, *, then: str = "close", name: str = ""
) -> AsyncIterator[str]:
    """Answer every line with *answer*, then close, fall silent or repeat it without end.

    Yields the path. The clients' lines are dropped: who answers wrongly need not listen.
    """
    path = folder / (name or f"stats-{os.urandom(4).hex()}.sock")
    data = answer.encode() if isinstance(answer, str) else answer
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readline()
            writer.write(data)
            while then == "repeat" and not over.is_set():
                await writer.drain()
                writer.write(data)
            if then == "silence":
                await over.wait()
            await writer.drain()
        writer.transport.abort() if then == "repeat" else writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield str(path)
    finally:
        over.set()
        server.close()
        await server.wait_closed()


@contextmanager
def full_stats_socket(folder: Path) -> Iterator[str]:
    """Accept nobody, with a backlog that is full already."""
    path = str(folder / "full.sock")
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(path)
        listener.listen(0)
        clients = []
        try:
            while True:
                client = socket.socket(socket.AF_UNIX)
                clients.append(client)
                client.settimeout(0)
                try:
                    client.connect(path)
                except BlockingIOError:
                    break
            yield path
        finally:
            for client in clients:
                client.close()
