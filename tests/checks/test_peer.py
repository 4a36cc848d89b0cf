"""The peer check: a real endpoint at the other end, and everything else that may answer there."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
from documents import HEALTHY, NOW_S, POLICY, stepped
from haproxies import DEADLINE_S, free_port
from servers import Behaviour, Connection, answering, serving

from sentinel import __version__
from sentinel.checks.peer import PeerCheck
from sentinel.config import Pace, Peer
from sentinel.core import Phase, State
from sentinel.drivers.peerserver import PeerServer
from sentinel.model import Code, Observation, PeerView, Scope, Verdict
from sentinel.peerdocument import document, parse

if TYPE_CHECKING:
    from sentinel.checks import Check

LONG_S = 20.0
SHORT_S = 0.2


def check_of(address: str, timeout_s: float = LONG_S) -> Check:
    """Return the check of the node lb1 for a peer at *address*."""
    pace = Pace(timeout_s=timeout_s)
    return PeerCheck(Peer(url=f"http://{address}/", pace=pace), "lb1", parse)


def told(state: State = HEALTHY, node: str = "lb2") -> str:
    """Return what *node* says when this is its state."""
    return document(
        POLICY, stepped(state), node=node, now_s=NOW_S, time="2026-01-02T03:04:05+00:00"
    )


def ok(body: bytes) -> bytes:
    """Return an HTTP answer with *body*."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def look(behaviour: Behaviour, timeout_s: float = LONG_S) -> Observation:
    """Ask a peer that behaves as badly as told."""
    with serving(behaviour) as address:
        return await check_of(address, timeout_s)()


# --- two nodes ------------------------------------------------------------------------------------


async def test_two_nodes_follow_each_other() -> None:
    """Each answers and asks, in one loop: well, failed, gone, and back again."""
    addresses = {node: f"127.0.0.1:{free_port()}" for node in ("lb1", "lb2")}
    states = dict.fromkeys(addresses, HEALTHY)
    check = check_of(addresses["lb2"])
    back = PeerCheck(Peer(url=f"http://{addresses['lb1']}"), "lb2", parse)

    def speak(node: str) -> str:
        return told(states[node], node)

    async with asyncio.TaskGroup() as group:
        tasks = {
            node: group.create_task(PeerServer(address).run(partial(speak, node)))
            for node, address in addresses.items()
        }
        seen = await until(check, Verdict.PASS)
        assert isinstance(seen.view, PeerView)
        assert (seen.view.node, seen.view.overall, seen.view.serving) == ("lb2", "healthy", True)
        assert (seen.view.servers_up, seen.view.servers_total) == (1, 2)
        assert (seen.code, seen.scope, seen.check) == (Code.L7OK, Scope.PEER, "peer")
        assert seen.detail == "lb2 is healthy and serving, 1 of 2 servers up"
        assert seen.duration_ms > 0

        states["lb2"] = replace(HEALTHY, phase=Phase.FAILED)
        seen = await check()
        assert seen.verdict is Verdict.PASS  # it answered; what it says is another matter
        assert seen.detail == "lb2 is failed and not serving, 1 of 2 servers up"
        assert (await until(back, Verdict.PASS)).detail.startswith("lb1 is healthy and serving")

        tasks["lb2"].cancel()
        assert (await until(check, Verdict.FAIL)).code is Code.L4CON
        again = group.create_task(PeerServer(addresses["lb2"]).run(told))
        assert (await until(check, Verdict.PASS)).code is Code.L7OK
        for task in (*tasks.values(), again):
            task.cancel()


async def until(check: Check, verdict: Verdict) -> Observation:
    """Ask until the answer has this *verdict*: a server takes its time to begin and to end."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            seen = await check()
            if seen.verdict is verdict:
                return seen
            await asyncio.sleep(0.01)


async def test_a_node_that_asks_itself_is_told_the_cure() -> None:
    """It must not take itself for a peer that is as well as it is."""
    seen = await look(answering(ok(told(node="lb1").encode())))
    assert (seen.verdict, seen.code) == (Verdict.FAIL, Code.L7STS)
    assert isinstance(seen.view, PeerView)
    assert seen.view.same_node
    assert "set peer.url to the other one" in seen.detail


async def test_a_peer_that_has_just_started_is_not_known_to_serve() -> None:
    """None is neither yes nor no."""
    seen = await look(answering(ok(told(State()).encode())))
    assert isinstance(seen.view, PeerView)
    assert seen.view.serving is None
    assert seen.detail == "lb2 is unknown and not known to serve, 0 of 0 servers up"


async def test_the_request_is_a_get_of_the_root() -> None:
    """With the peer's own address as Host, and no keep-alive."""
    requests: list[str] = []

    def behave(connection: Connection) -> None:
        requests.append(connection.request())
        connection.sock.sendall(ok(told().encode()))

    with serving(behave) as address:
        assert (await check_of(address)()).verdict is Verdict.PASS
    assert requests[0].split("\r\n") == [
        "GET / HTTP/1.1",
        f"Host: {address}",
        f"User-Agent: sentinel/{__version__}",
        "Connection: close",
        "Accept: application/json",
        "",
        "",
    ]


# --- everything else that may answer --------------------------------------------------------------


def flooding(head: bytes, data: bytes) -> Behaviour:
    """Answer *head*, and *data* without an end."""

    def behave(connection: Connection) -> None:
        connection.request()
        connection.sock.sendall(head)
        connection.flood(data)

    return behave


def hanging_up(connection: Connection) -> None:
    """Answer the request with a RST."""
    connection.request()
    connection.reset()


def dripping(answer: bytes) -> Behaviour:
    """Answer one byte after the other, all too slowly."""

    def behave(connection: Connection) -> None:
        connection.request()
        connection.trickle(answer)

    return behave


LATER = told().replace('"schema_version": 1', '"schema_version": 2')
HTML = b"<html>It works!</html>"


@pytest.mark.parametrize(
    ("behaviour", "code", "words"),
    [
        (answering(b""), Code.L7RSP, "closed after 0 bytes"),
        (hanging_up, Code.L7RSP, "reset"),
        (answering(b"SSH-2.0-OpenSSH_9.2\r\n"), Code.L7RSP, "closed after 21 bytes"),
        (answering(b"HTTP/1.1 404 Not Found\r\n\r\n"), Code.L7STS, "status 404, expected 200"),
        (answering(b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"), Code.L7STS, "status 302"),
        (answering(ok(b"")), Code.L7RSP, "the answer is not JSON: ''"),
        (answering(ok(HTML)), Code.L7RSP, "the answer is not JSON: '<html>It works"),
        (answering(ok(b"\xff\xfe{}")), Code.L7RSP, "the answer is not JSON: "),
        (answering(ok(b"[" * 40_000)), Code.L7RSP, "the answer is not JSON: '[[["),
        (answering(ok(told().encode())[:-9]), Code.L7RSP, "closed"),
        (answering(ok(LATER.encode())), Code.L7RSP, "has schema_version 2, not 1: run the same"),
        (answering(ok(told().encode() + b" " * 10**7)), Code.L7RSP, "is longer than"),
        (flooding(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 10**6), Code.L7RSP, "is longer than"),
        (flooding(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 999), Code.L7RSP, ""),
        (flooding(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 999), Code.L7RSP, "more than"),
    ],
)
async def test_what_is_no_answer_fails(behaviour: Behaviour, code: Code, words: str) -> None:
    """With HAProxy's code and short words; there is no view then."""
    seen = await look(behaviour)
    assert (seen.verdict, seen.code, seen.view) == (Verdict.FAIL, code, None)
    assert words in seen.detail
    assert seen.detail.isprintable()
    assert len(seen.detail) <= 200


@pytest.mark.parametrize(
    "behaviour",
    [
        Connection.hold,
        dripping(ok(told().encode())),
        dripping(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 999),
        flooding(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b""),
    ],
)
async def test_what_never_comes_to_an_end_is_l7tout(behaviour: Behaviour) -> None:
    """Nothing at all, a byte now and then, a body that does not come: the deadline is ours."""
    seen = await look(behaviour, SHORT_S)
    assert (seen.verdict, seen.code) == (Verdict.FAIL, Code.L7TOUT)
    assert seen.detail == "no answer within 0.2 s"


async def test_a_name_that_nobody_knows_says_nothing_of_the_peer() -> None:
    """A missing name server is a fault of this node: UNKNOWN."""
    seen = await check_of("no-such-host.invalid:9103")()
    assert (seen.verdict, seen.code, seen.view) == (Verdict.UNKNOWN, Code.SOCKERR, None)


async def test_all_places_taken_is_no_answer() -> None:
    """A peer that turns us away is not known to be better; it has room again later."""
    server = PeerServer(f"127.0.0.1:{free_port()}")
    host, _, port = server.listen.rpartition(":")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.run(told))
        await until(check_of(server.listen), Verdict.PASS)
        pairs = [await asyncio.open_connection(host, int(port)) for _ in range(8)]
        await until(check_of(server.listen), Verdict.FAIL)
        for _, writer in pairs:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        await until(check_of(server.listen), Verdict.PASS)
        task.cancel()


@pytest.mark.parametrize("url", ["", "lb2:9103", "https://lb2:9103/", "http://lb2:9103/status"])
def test_a_wrong_url_is_our_own_mistake(url: str) -> None:
    """The configuration refuses it before."""
    with pytest.raises(ValueError, match="write"):
        PeerCheck(Peer(url=url), "lb1", parse)
