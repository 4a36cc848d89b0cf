"""The client: a new connection to the VIP every 10 ms, each answer timed.

``python -m sentinel.drill.client HOST:PORT plain|tls [any]`` prints one line a request, ``END TOOK
GOOD`` (seconds of CLOCK_MONOTONIC, milliseconds, 1 or 0), until it is killed. It is a process of
its own, so that nothing else that happens delays it. A good answer is any HTTP status below 500,
in time; with ``any``, every HTTP status.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import time
from typing import Final

EVERY_S: Final = 0.01
TIMEOUT_S: Final = 0.25
#: From here on an answer tells of a failure behind HAProxy.
FAILURE: Final = 500
_NO_ANSWER: Final = 0
_ANY: Final = 1000
_DIGITS: Final = 3


async def ask(host: str, port: int, tls: ssl.SSLContext | None) -> int:
    """Make one request over a new connection; return its HTTP status, 0 for none in time."""
    writer = None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port, ssl=tls)
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            words = (await reader.readline()).split(maxsplit=2)
            good = len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].isdigit()
            return int(words[1][:_DIGITS]) if good else _NO_ANSWER
    except (OSError, TimeoutError):
        return _NO_ANSWER
    finally:
        if writer is not None:
            writer.transport.abort()


async def run(host: str, port: int, tls: ssl.SSLContext | None, below: int) -> None:
    """Ask at an even pace, whatever has become of the requests before.

    A status *below* that is good.
    """

    async def one() -> None:
        begun_s = time.monotonic()
        good = _NO_ANSWER < await ask(host, port, tls) < below
        ended_s = time.monotonic()
        sys.stdout.write(f"{ended_s:.6f} {(ended_s - begun_s) * 1000:.3f} {good:d}\n")
        sys.stdout.flush()

    due_s = time.monotonic()
    async with asyncio.TaskGroup() as group:
        while True:
            group.create_task(one())
            # a pause of the machine is not made up for by a burst
            due_s = max(due_s + EVERY_S, time.monotonic() - EVERY_S)
            await asyncio.sleep(due_s - time.monotonic())


def trusting() -> ssl.SSLContext:
    """Return a TLS context that takes every certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


if __name__ == "__main__":
    address, _, port_text = sys.argv[1].rpartition(":")
    context = trusting() if sys.argv[2] == "tls" else None
    limit = _ANY if sys.argv[3:] == ["any"] else FAILURE
    asyncio.run(run(address.strip("[]"), int(port_text), context, limit))
