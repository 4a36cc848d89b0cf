"""So many visitors at once, each with a request under way; who is cut off comes again at once.

    python bench/visitors.py ADDRESS PORT VISITORS

A visitor asks what the drill's web servers never answer, and keeps the connection. The kernel asks
on each of them every second whether the other side still knows it, as a client learns that its
address has moved to a machine that knows nothing of it. Prints ``PRESENT CUT_OFF`` ten times a
second until it is killed: how many have a connection now, and how often one was lost.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import suppress
from typing import Final

from sentinel.drill.standins import HOLD_PATH

#: So many try to connect at the same time.
AT_ONCE: Final = 200
TELL_EVERY_S: Final = 0.1
RETRY_S: Final = 0.1
CONNECT_S: Final = 3.0
_ALIVE: Final = ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 5))
_REQUEST: Final = f"GET {HOLD_PATH} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()


class Visitors:
    """All of them, and how they fare."""

    def __init__(self, address: str, port: int) -> None:
        self._place: Final = (address, port)
        self._gate: Final = asyncio.Semaphore(AT_ONCE)
        self.present = 0
        self.cut_off = 0

    async def visit(self) -> None:
        """Be one visitor, for ever."""
        while True:
            with suppress(OSError, TimeoutError):
                await self._stay()
            await asyncio.sleep(RETRY_S)

    async def _stay(self) -> None:
        async with self._gate, asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(*self._place)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _ALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        writer.write(_REQUEST)
        self.present += 1
        try:
            await reader.read(1)
        finally:
            self.present -= 1
            self.cut_off += 1
            writer.transport.abort()


async def main(address: str, port: int, count: int) -> None:
    """Send them all, and tell."""
    visitors = Visitors(address, port)
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(visitors.visit())
        while True:
            print(visitors.present, visitors.cut_off, flush=True)
            await asyncio.sleep(TELL_EVERY_S)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
