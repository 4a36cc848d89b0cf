"""The peer's endpoint: what is answered, what is refused, and that nobody can hold sentinel up."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from haproxies import DEADLINE_S, free_port
from privileges import IS_ROOT

from sentinel.drivers.peerserver import CLIENT_TIMEOUT_S, CLIENTS_MAX, REQUEST_MAX_BYTES, PeerServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

GET = b"GET / HTTP/1.1\r\nHost: lb2\r\n\r\n"
#: More than the kernel takes without being read.
LONG = "x" * 8_000_000


@asynccontextmanager
async def running(
    document: Callable[[], str] = lambda: "{}", listen: str = "", *, listening: bool = True
) -> AsyncIterator[PeerServer]:
    """Run a server and hand it over once it is *listening*."""
    server = PeerServer(listen or f"127.0.0.1:{free_port()}")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.run(document))
        await asyncio.sleep(0)  # it begins
        try:
            if listening:
                await answered(server.listen)
            yield server
        finally:
            task.cancel()


async def answered(listen: str, times: int = 1) -> None:
    """Ask until there was an answer so often: nobody tells a client that there is room."""
    async with asyncio.timeout(DEADLINE_S):
        while times:
            with suppress(OSError):
                times -= (await ask(listen)).startswith(b"HTTP/1.1 200 OK\r\n")
            await asyncio.sleep(0.01)


async def ask(listen: str, request: bytes = GET) -> bytes:
    """Send *request* and read all there is."""
    host, _, port = listen.rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def client_of(server: PeerServer, request: bytes = b"") -> socket.socket:
    """Connect and send *request*; nothing more."""
    host, _, port = server.listen.rpartition(":")
    client = socket.create_connection((host, int(port)))
    client.sendall(request)
    return client


# --- what is answered -----------------------------------------------------------------------------


async def test_a_get_is_given_the_document() -> None:
    """Whole, not to be kept by anyone in between, and then the end."""
    async with running(lambda: '{"node": "lb1"}') as server:
        assert server.error == ""
        head, _, body = (await ask(server.listen)).partition(b"\r\n\r\n")
    assert body == b'{"node": "lb1"}\n'
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 200 OK",
        b"Content-Length: 16",
        b"Cache-Control: no-store",
        b"Connection: close",
        b"Content-Type: application/json",
    ]


async def test_a_head_is_given_the_same_head() -> None:
    """And no body (RFC 9110, section 9.3.2)."""
    async with running() as server:
        whole = await ask(server.listen)
        head = await ask(server.listen, GET.replace(b"GET", b"HEAD"))
    assert head == whole.removesuffix(b"{}\n")


async def test_every_answer_is_made_when_it_is_asked_for() -> None:
    """Nobody gets an old one."""
    count = iter(range(100))
    async with running(lambda: str(next(count))) as server:
        answers = [(await ask(server.listen)).rpartition(b"\r\n")[2] for _ in range(3)]
    assert answers == [b"1\n", b"2\n", b"3\n"]


async def test_a_long_answer_arrives_whole() -> None:
    """Also when the kernel does not take it at once."""
    async with running(lambda: LONG) as server:
        assert (await ask(server.listen)).endswith(LONG.encode() + b"\n")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET / HTTP/1.0", b"200 OK"),
        (b"POST / HTTP/1.1", b"405 Method Not Allowed"),
        (b"get / HTTP/1.1", b"405 Method Not Allowed"),
        (b"GET /status HTTP/1.1", b"404 Not Found"),
        (b"GET /? HTTP/1.1", b"404 Not Found"),
        (b"POST /reload HTTP/1.1", b"404 Not Found"),
        (b"OPTIONS * HTTP/1.1", b"404 Not Found"),
        (b"PRI * HTTP/2.0", b"400 Bad Request"),
        (b"GET  / HTTP/1.1", b"400 Bad Request"),
        (b"GET /", b"400 Bad Request"),
        (b"", b"400 Bad Request"),
        (b"\x16\x03\x01\x02\x00\x01\xff", b"400 Bad Request"),
    ],
)
async def test_everything_else_is_refused(request_line: bytes, status: bytes) -> None:
    """By method, by path, by version; 405 names the methods there are."""
    async with running() as server:
        answer = await ask(server.listen, request_line + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 " + status + b"\r\n")
    assert (b"\r\nAllow: GET, HEAD\r\n" in answer) is (b"405" in status)
    assert answer.endswith(b"\r\n\r\n") is (b"200" not in status)


async def test_ipv6_is_answered_too() -> None:
    """An address in brackets."""
    async with running(listen=f"[::1]:{free_port('::1')}") as server:
        assert (await ask(server.listen)).endswith(b"{}\n")


# --- nobody can hold it up ------------------------------------------------------------------------


@pytest.mark.parametrize("more", [b"X: y\r\n", b"X"], ids=["many fields", "a long field"])
async def test_a_request_over_its_bound_is_refused(more: bytes) -> None:
    """However it has come to that, and said before its end has come."""
    over = (GET[:-2] + more * REQUEST_MAX_BYTES)[: REQUEST_MAX_BYTES + len(b"\r\n\r\n")]
    async with running() as server, asyncio.timeout(DEADLINE_S):
        with closing(client_of(server, over)) as client:
            client.settimeout(0)
            answer = await asyncio.get_running_loop().sock_recv(client, 100)
        assert answer.startswith(b"HTTP/1.1 431 ")


async def ask_without_end(client: socket.socket) -> None:
    """Send field after field, until that is refused."""
    client.settimeout(0)
    while True:
        await asyncio.get_running_loop().sock_sendall(client, GET[:-2])


async def test_a_request_without_end_is_dropped_at_its_bound() -> None:
    """The rest is not read: the client is told so with a reset, and its place is free again."""
    async with running() as server, asyncio.timeout(DEADLINE_S):
        with closing(client_of(server)) as client, pytest.raises(ConnectionError):
            await ask_without_end(client)
        await answered(server.listen, CLIENTS_MAX)


async def drip(client: socket.socket) -> None:
    """Send one byte of a request after the other, all too slowly."""
    with suppress(OSError):
        while True:
            client.sendall(b"G")
            await asyncio.sleep(0.05)


async def test_who_asks_too_slowly_is_dropped() -> None:
    """At a deadline; until then the places are taken, and others are turned away at once."""
    async with running() as server, asyncio.TaskGroup() as group:
        clients = [client_of(server) for _ in range(CLIENTS_MAX)]
        dripping = [group.create_task(drip(client)) for client in clients]
        with suppress(ConnectionError):
            assert await ask(server.listen) == b""
        async with asyncio.timeout(CLIENT_TIMEOUT_S * 10):
            await asyncio.wait(dripping)
            await answered(server.listen, CLIENTS_MAX)
        for client in clients:
            client.close()


async def test_who_does_not_read_is_dropped() -> None:
    """At the deadline as well; before it there is no room."""
    answers = [LONG] * (1 + CLIENTS_MAX)
    full = asyncio.Event()

    def document() -> str:
        if not answers:
            return "{}"
        answer = answers.pop()
        if not answers:
            full.set()
        return answer

    async with running(document) as server:
        clients = [client_of(server, GET) for _ in range(CLIENTS_MAX)]
        async with asyncio.timeout(DEADLINE_S):
            await full.wait()
        with suppress(ConnectionError):
            assert await ask(server.listen) == b""
        await answered(server.listen, CLIENTS_MAX)
        for client in clients:
            client.close()


async def test_who_goes_away_is_forgotten() -> None:
    """A client that closes at once, a hundred times over, takes nobody's place."""
    async with running() as server:
        for sent in (b"", GET[:5]) * 50:
            client_of(server, sent).close()
            await asyncio.sleep(0)
        await answered(server.listen, CLIENTS_MAX)


# --- listening ------------------------------------------------------------------------------------


@pytest.mark.parametrize("listen", ["", "127.0.0.1", "lb1:9103", "/run/peer.sock"])
def test_a_wrong_address_is_our_own_mistake(listen: str) -> None:
    """The configuration refuses it before."""
    with pytest.raises(ValueError, match="write"):
        PeerServer(listen)


async def test_a_port_that_is_taken_is_told_and_waited_for() -> None:
    """The daemon goes on without it, and listens when the other one has gone."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        async with running(listen=listen, listening=False) as server:
            assert server.error == f"peer endpoint {listen}: Address already in use"
            other.close()
            await answered(listen)
            assert server.error == ""


async def test_the_port_is_free_again_when_it_ends() -> None:
    """Also while a client is being served; a successor listens at once."""
    async with running() as server:
        listen = server.listen
        slow = client_of(server, GET[:5])
    with closing(slow):
        async with running(listen=listen) as successor:
            assert successor.error == ""


_WHEN_IT_COMES = """\
import asyncio, subprocess
from sentinel.drivers.peerserver import PeerServer

async def main():
    server = PeerServer("{listen}")
    task = asyncio.ensure_future(server.run(lambda: "here"))
    await asyncio.sleep(0)
    print(server.error or "listens")
    subprocess.run("ip link set lo up; ip address add {address} dev lo {flag}", shell=True)
    reader, writer = await asyncio.open_connection("{host}", 9103)
    writer.write(b"GET / HTTP/1.1\\r\\n\\r\\n")
    print((await reader.read()).splitlines()[-1].decode())
    writer.close()
    task.cancel()

asyncio.run(main())
"""


@pytest.mark.skipif(not IS_ROOT or not shutil.which("unshare"), reason="makes a network of its own")
@pytest.mark.parametrize(
    ("listen", "host", "address", "flag"),
    [
        ("192.0.2.1:9103", "192.0.2.1", "192.0.2.1/32", ""),
        ("[2001:db8::1]:9103", "2001:db8::1", "2001:db8::1/128", "nodad"),
    ],
)
def test_an_address_may_come_later(listen: str, host: str, address: str, flag: str) -> None:
    """It listens before the address is there, and answers once it is."""
    script = _WHEN_IT_COMES.format(listen=listen, host=host, address=address, flag=flag)
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.stdout.splitlines() == ["listens", "here"], done.stderr
