"""Fill HAProxy: more guests than it admits, each with a request that it never quite finishes.

    python bench/crowd.py ADDRESS PORT GUESTS

Half of every minute the guests keep their seats; in the other half each one asks properly after
one to three seconds, leaves and queues again. Runs until it is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import time
from typing import Final

CYCLE_S: Final = 60.0
HELD_S: Final = 30.0
RETRY_S: Final = 0.2


async def guest(address: str, port: int, seat: int) -> None:
    """Queue, sit, ask, leave, again and again."""
    for visit in itertools.count():
        with contextlib.suppress(OSError):
            await sit(address, port, 1.0 + (seat + visit) % 5 / 2)
        await asyncio.sleep(RETRY_S)


async def sit(address: str, port: int, stay_s: float) -> None:
    """Take a seat for *stay_s*, or as long as it is a time of sitting; then ask."""
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(b"GET / HTTP/1.0\r\n")
        into_cycle_s = time.monotonic() % CYCLE_S
        await asyncio.sleep(HELD_S - into_cycle_s if into_cycle_s < HELD_S else stay_s)
        writer.write(b"\r\n")
        await reader.read()
    finally:
        writer.transport.abort()


async def main(address: str, port: int, guests: int) -> None:
    """Be a crowd."""
    await asyncio.gather(*(guest(address, port, seat) for seat in range(guests)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
