"""The client's question, asked of servers that answer one thing."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from sentinel.drill.client import ask


async def answering(answer: bytes) -> asyncio.Server:
    """Start a server that says *answer* to everybody."""

    async def say(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    return await asyncio.start_server(say, "127.0.0.1", 0)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\n", 200),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", 503),
        (b"HTTP/1.1 nonsense\r\n", 0),
        (b"SSH-2.0-OpenSSH\r\n", 0),
        (b"", 0),
    ],
)
async def test_a_status_is_what_counts(answer: bytes, status: int) -> None:
    """Nothing else is an answer."""
    async with await answering(answer) as server:
        host, port = server.sockets[0].getsockname()
        assert await ask(host, port, None) == status


@pytest.mark.parametrize(("option", "good"), [((), b"0"), (("any",), b"1")])
async def test_a_failure_behind_haproxy(option: tuple[str, ...], good: bytes) -> None:
    """It is no good answer, unless any is."""
    async with await answering(b"HTTP/1.0 503 No\r\n\r\n") as server:
        place = "{}:{}".format(*server.sockets[0].getsockname())
        client = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sentinel.drill.client", place, "plain", *option),
            stdout=subprocess.PIPE,
        )
        assert client.stdout is not None
        async with asyncio.timeout(20):
            line = await client.stdout.readline()
        client.kill()
        await client.communicate()
    assert line.split()[2] == good
