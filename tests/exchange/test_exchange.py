"""Every way an exchange can end, over real sockets, by its code.

Deadlines are tested by servers that never come to an end, never by the clock.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import socket
import ssl
import threading
import time
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from certificates import Certificate, issue
from haproxies import free_port, wait_until
from nameservers import NAME, silent_name_server
from namespaces import apart, needs_root
from processes import descriptors
from servers import Behaviour, Connection, answering, serving, tls_context

from sentinel.address import read_address
from sentinel.config import ProxyProtocol
from sentinel.exchange import Request, Result, Target, Tls, exchange
from sentinel.exchange.deadline import HELD_UP_S
from sentinel.exchange.http import Conversation
from sentinel.model import Code, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG_S = 20.0
SHORT_S = 0.2

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def ask(
    address: str,
    *,
    tls: Tls | None = None,
    method: str = "HEAD",
    expect: str = "200",
    body: str = "",
    timeout_s: float = LONG_S,
) -> Result:
    """Make one HTTP exchange."""
    request = Request.build(host="localhost", method=method, expect=(expect,), body=body)
    target = Target(address=read_address(address), tls=tls)
    return await exchange(target, request, timeout_s=timeout_s)


async def knock(address: str, *, tls: Tls | None = None, timeout_s: float = LONG_S) -> Result:
    """Make an exchange that stops at the connection."""
    target = Target(address=read_address(address), tls=tls)
    return await exchange(target, None, timeout_s=timeout_s)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for localhost and 127.0.0.1 that is good for a month."""
    return issue(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def expired(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """The same, two days after its end."""
    return issue(tmp_path_factory.mktemp("expired"), good_for=timedelta(days=-2))


# --- connect ------------------------------------------------------------------------------------


async def test_a_listener_that_takes_the_connection_is_l4ok() -> None:
    """Without a request the connection is all that is asked for."""
    with serving(Connection.hold) as address:
        result = await knock(address)
    assert (result.code, result.verdict) == (Code.L4OK, Verdict.PASS)
    assert result.connect_ms is not None
    assert (result.tls_ms, result.response_ms, result.status) == (None, None, None)


async def test_a_closed_port_is_l4con() -> None:
    """Nobody listens: refused."""
    result = await ask(f"127.0.0.1:{free_port()}")
    assert (result.code, result.verdict) == (Code.L4CON, Verdict.FAIL)
    assert result.detail == "Connection refused"


async def test_a_missing_unix_socket_is_l4con(tmp_path: Path) -> None:
    """The socket's file is gone: nobody listens."""
    result = await ask(str(tmp_path / "gone"))
    assert (result.code, result.detail) == (Code.L4CON, "No such file or directory")


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
async def test_a_full_backlog_is_l4tout(family: socket.AddressFamily, tmp_path: Path) -> None:
    """A listener that no one accepts from refuses nothing; it keeps silent."""
    path = str(tmp_path / "sock")
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family))
        listener.bind(path if family == socket.AF_UNIX else ("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket(family))
            filler.settimeout(0)
            with suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        port = "" if family == socket.AF_UNIX else listener.getsockname()[1]
        result = await knock(
            path if family == socket.AF_UNIX else f"127.0.0.1:{port}", timeout_s=SHORT_S
        )
    assert (result.code, result.verdict) == (Code.L4TOUT, Verdict.FAIL)


async def test_a_unix_backlog_that_clears_in_time_is_waited_for(tmp_path: Path) -> None:
    """EAGAIN of a Unix socket is tried again, as TCP repeats its SYN."""
    path = str(tmp_path / "sock")
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(0)
        filler = stack.enter_context(socket.socket(socket.AF_UNIX))
        filler.connect(path)
        waiting = asyncio.ensure_future(knock(path))
        await asyncio.sleep(0)
        assert not waiting.done()
        stack.enter_context(listener.accept()[0])
        result = await waiting
    assert result.code is Code.L4OK


async def test_a_name_is_as_good_as_its_address() -> None:
    """A resolver is asked where there is a name; the hosts file knows localhost."""
    with serving(Connection.hold) as address:
        result = await knock(address.replace("127.0.0.1", "localhost"))
    assert result.code is Code.L4OK


@pytest.mark.parametrize("address", ["a..b:80", "[fe80::1%nosuchzone]:80", "[fe80::1]:80"])
async def test_an_address_that_means_nothing_here_is_unknown(address: str) -> None:
    """A name that cannot be resolved, a zone that is gone, or missing: our fault, never FAIL."""
    result = await ask(address)
    assert (result.code, result.verdict) == (Code.SOCKERR, Verdict.UNKNOWN)


@needs_root
def test_a_silent_name_server_is_unknown() -> None:
    """It says nothing about whom the name belongs to, and holds up nobody with a number."""

    async def body() -> None:
        with silent_name_server(), serving(answering(OK)) as address:
            late = await asyncio.gather(*(ask(f"{NAME}:80", timeout_s=SHORT_S) for _ in range(20)))
            assert {(result.code, result.verdict) for result in late} == {
                (Code.SOCKERR, Verdict.UNKNOWN)
            }
            assert (
                sum(thread.name.startswith("looking up") for thread in threading.enumerate()) == 1
            )
            assert (await ask(address)).code is Code.L7OK

    apart(body)


async def test_running_out_of_descriptors_is_unknown() -> None:
    """EMFILE says nothing about the other side."""
    with serving(answering(OK)) as address:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            result = await ask(address)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (result.code, result.verdict) == (Code.SOCKERR, Verdict.UNKNOWN)
    assert result.detail == "Too many open files"


# --- TLS ----------------------------------------------------------------------------------------


async def test_a_handshake_is_l6ok_and_tells_the_expiry(good: Certificate) -> None:
    """Without verification the certificate's end is read all the same."""
    with serving(Connection.hold, tls=tls_context(good.file)) as address:
        result = await knock(address, tls=Tls(server_name="localhost"))
    assert (result.code, result.detail) == (Code.L6OK, "TLSv1.3")
    assert result.certificate_not_after_s == good.not_after.timestamp()
    assert result.tls_ms is not None


async def test_tls_1_2_is_spoken_as_well(good: Certificate) -> None:
    """An older server is a server."""
    context = tls_context(good.file)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with serving(answering(OK), tls=context) as address:
        result = await ask(address, tls=Tls(server_name="localhost"))
    assert result.code is Code.L7OK


def _saying(data: bytes) -> Behaviour:
    def behave(connection: Connection) -> None:
        connection.sock.recv(4096)
        connection.sock.sendall(data)

    return behave


def _close(_connection: Connection) -> None:
    return


def _hello_then_reset(connection: Connection) -> None:
    connection.sock.recv(4096)
    connection.reset()


def _endless_hello(connection: Connection) -> None:
    """Send a handshake of 16 MB in records without end."""
    connection.sock.recv(4096)
    connection.sock.sendall(b"\x16\x03\x03\x3f\x04\x02\xff\xff\xff" + bytes(0x3F00))
    connection.flood(b"\x16\x03\x03\x3f\x00" + bytes(0x3F00))


def _endless_requests_for_a_hello(connection: Connection) -> None:
    """OpenSSL passes over HelloRequests while it waits for the ServerHello (RFC 5246, 7.4.1.1)."""
    connection.sock.recv(4096)
    connection.flood(b"\x16\x03\x03\x00\x04\x00\x00\x00\x00" * 400)


@pytest.mark.parametrize(
    "behaviour",
    [
        _close,
        _hello_then_reset,
        _saying(b"\x15\x03\x03\x00\x02\x02\x28"),  # fatal, handshake_failure
        _saying(OK),
        _saying(b"SSH-2.0-x\r\n"),
        _endless_hello,
        _endless_requests_for_a_hello,
    ],
    ids=["closes", "resets", "alert", "speaks HTTP", "speaks SSH", "endless hello", "never begins"],
)
async def test_a_handshake_that_fails_is_l6rsp(behaviour: Behaviour) -> None:
    """Whatever comes instead of TLS: layer 6, and the reason is told."""
    with serving(behaviour) as address:
        result = await ask(address, tls=Tls(server_name="localhost"))
    assert (result.code, result.verdict) == (Code.L6RSP, Verdict.FAIL)
    assert result.detail


def _slow_hello(connection: Connection) -> None:
    connection.sock.recv(4096)
    connection.trickle(b"\x16\x03\x03\x40\x00\x02" + bytes(0x3FFF))


@pytest.mark.parametrize("behaviour", [Connection.hold, _slow_hello], ids=["silent", "slow"])
async def test_a_handshake_without_end_is_l6tout(behaviour: Behaviour) -> None:
    """Silence and one byte at a time meet the same deadline."""
    with serving(behaviour) as address:
        result = await ask(address, tls=Tls(server_name="localhost"), timeout_s=SHORT_S)
    assert (result.code, result.verdict) == (Code.L6TOUT, Verdict.FAIL)


async def test_a_verified_certificate_passes(good: Certificate) -> None:
    """Chain and name are right; an IP address is a name as well."""
    with serving(answering(OK), tls=tls_context(good.file)) as address:
        for name in ("localhost", "127.0.0.1"):
            tls = Tls(server_name=name, verify=True, ca_file=str(good.file))
            result = await ask(address, tls=tls)
            assert result.code is Code.L7OK
            assert result.certificate_not_after_s == good.not_after.timestamp()


async def test_an_expired_certificate_fails_only_when_verified(expired: Certificate) -> None:
    """Without verify it is reported; with verify it is L6RSP, and why."""
    with serving(answering(OK), tls=tls_context(expired.file)) as address:
        lenient = await ask(address, tls=Tls(server_name="localhost"))
        strict = await ask(
            address, tls=Tls(server_name="localhost", verify=True, ca_file=str(expired.file))
        )
    assert lenient.code is Code.L7OK
    assert lenient.certificate_not_after_s == expired.not_after.timestamp()
    assert (strict.code, strict.verdict) == (Code.L6RSP, Verdict.FAIL)
    assert "expired" in strict.detail


async def test_a_wrong_name_and_an_unknown_issuer_are_told(
    good: Certificate, expired: Certificate
) -> None:
    """Each refusal of a certificate says which it is."""
    with serving(answering(OK), tls=tls_context(good.file)) as address:
        wrong = Tls(server_name="other.example", verify=True, ca_file=str(good.file))
        assert "Hostname mismatch" in (await ask(address, tls=wrong)).detail
        foreign = Tls(server_name="localhost", verify=True, ca_file=str(expired.file))
        assert "self-signed certificate" in (await ask(address, tls=foreign)).detail
        system = Tls(server_name="localhost", verify=True)
        assert "self-signed certificate" in (await ask(address, tls=system)).detail


@pytest.mark.parametrize("content", [None, "not a certificate"])
async def test_an_unreadable_ca_file_is_unknown(content: str | None, tmp_path: Path) -> None:
    """Our own broken configuration never condemns a frontend."""
    ca_file = tmp_path / "ca.pem"
    if content:
        ca_file.write_text(content)
    with serving(answering(OK)) as address:
        result = await ask(
            address, tls=Tls(server_name="localhost", verify=True, ca_file=str(ca_file))
        )
    assert (result.code, result.verdict) == (Code.SOCKERR, Verdict.UNKNOWN)


async def test_contexts_are_built_once_and_again_when_the_ca_file_changes(
    good: Certificate, tmp_path: Path
) -> None:
    """A probe costs no context; a renewed CA file needs no restart."""
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text(good.file.read_text())
    tls = Tls(server_name="localhost", verify=True, ca_file=str(ca_file))
    first = await tls.context()
    assert await tls.context() is first
    os.utime(ca_file, ns=(1, 1))
    assert await tls.context() is not first


async def test_a_ca_file_that_hangs_holds_up_nobody(good: Certificate, tmp_path: Path) -> None:
    """Who needs it does not know; who does not is answered."""
    ca_file = tmp_path / "ca.pem"
    os.mkfifo(ca_file)
    hanging = Tls(server_name="localhost", verify=True, ca_file=str(ca_file))
    with serving(answering(OK), tls=tls_context(good.file)) as address:
        late, fine = await asyncio.gather(
            ask(address, tls=hanging, timeout_s=SHORT_S),
            ask(address, tls=Tls(server_name="localhost")),
        )
    ca_file.write_text("")  # its reader waits for it
    assert (late.code, late.detail) == (
        Code.SOCKERR,
        "no name resolved nor CA file read within 0.2 s",
    )
    assert fine.code is Code.L7OK


@pytest.mark.parametrize("name", ["", "a" * 64 + ".example"])
def test_a_name_that_cannot_be_verified_is_refused_at_once(name: str) -> None:
    """To verify without a name, or with an impossible one, is a mistake in the configuration."""
    with pytest.raises(ValueError, match="server name"):
        Tls(server_name=name, verify=True)


async def test_a_client_certificate_that_is_asked_for_is_l6rsp(good: Certificate) -> None:
    """With TLS 1.3 the refusal comes after the handshake; it is layer 6 all the same."""
    context = tls_context(good.file)
    context.verify_mode = ssl.CERT_REQUIRED
    with serving(answering(OK), tls=context) as address:
        result = await ask(address, tls=Tls(server_name="localhost"))
    assert result.code is Code.L6RSP
    assert "certificate required" in result.detail


async def test_a_tls_answer_may_end_without_close_notify(good: Certificate) -> None:
    """Many servers just close; a body that ends with the connection is whole all the same."""

    def behave(connection: Connection) -> None:
        connection.request()
        connection.sock.sendall(b"HTTP/1.0 200 OK\r\n\r\nall is well")
        connection.sock.shutdown(socket.SHUT_RDWR)

    with serving(behave, tls=tls_context(good.file)) as address:
        result = await ask(
            address, tls=Tls(server_name="localhost"), method="GET", body="all is well$"
        )
    assert result.code is Code.L7OK


# --- response -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK,
    ],
    ids=["plain", "HTTP/1.0 without length", "no reason", "folded header", "interim answers"],
)
async def test_a_good_answer_is_l7ok(answer: bytes) -> None:
    """Everything HTTP allows is understood, down to its oldest forms."""
    with serving(answering(answer)) as address:
        result = await ask(address)
    assert (result.code, result.verdict, result.status) == (Code.L7OK, Verdict.PASS, 200)
    assert result.detail == "status 200"
    assert result.response_ms is not None


async def test_an_unexpected_status_is_l7sts() -> None:
    """Well-formed, and not what was expected: both are told."""
    with serving(answering(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")) as address:
        result = await ask(address, expect="200-399")
    assert (result.code, result.verdict, result.status) == (Code.L7STS, Verdict.FAIL, 503)
    assert result.detail == "status 503, expected 200-399"


UPGRADE = ("Connection: Upgrade", "Upgrade: websocket")
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.mark.parametrize(
    ("expect", "body", "code"),
    [("101", "", Code.L7OK), ("101", "x", Code.L7STS), ("200", "", Code.L7STS)],
)
async def test_a_switch_of_protocols_is_the_last_answer(expect: str, body: str, code: Code) -> None:
    """Of a websocket nothing else is to be read: what follows is no HTTP, and no body."""
    request = Request.build(host="x", method="GET", headers=UPGRADE, expect=(expect,), body=body)
    with serving(answering(SWITCHED + b"\x81\x01x")) as address:
        target = Target(address=read_address(address))
        result = await exchange(target, request, timeout_s=LONG_S)
    assert (result.code, result.status) == (code, 101)


async def test_a_tunnel_is_an_answer() -> None:
    """CONNECT is answered by a final status, after which nobody speaks HTTP either."""
    with serving(answering(b"HTTP/1.1 200 OK\r\n\r\nx")) as address:
        request = Request.build(host="x", method="CONNECT", path="x:1", expect=("200",), body="x")
        target = Target(address=read_address(address))
        result = await exchange(target, request, timeout_s=LONG_S)
    assert (result.code, result.status) == (Code.L7STS, 200)


def _endless_interim(connection: Connection) -> None:
    connection.request()
    connection.flood(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


def _endless_headers(connection: Connection) -> None:
    connection.request()
    connection.sock.sendall(b"HTTP/1.1 200 OK\r\n")
    connection.flood(b"X-Padding: abcdefghijklmnopqrstuvwxyz\r\n" * 100)


def _endless_line(connection: Connection) -> None:
    connection.request()
    connection.flood(b"a" * 4096)


def _half(connection: Connection) -> None:
    connection.request()
    connection.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Le")


def _request_then_reset(connection: Connection) -> None:
    connection.request()
    connection.reset()


@pytest.mark.parametrize(
    "behaviour",
    [
        _close,
        _half,
        _request_then_reset,
        answering(b"220 mail.example ESMTP\r\n"),
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
        answering(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        answering(bytes(range(256))),
        _endless_headers,
        _endless_line,
        _endless_interim,
    ],
    ids=[
        "closes", "half headers", "resets", "speaks SMTP", "bad length",
        "switches protocols", "binary", "endless headers", "endless line", "endless interim",
    ],
)  # fmt: skip
async def test_an_answer_that_is_no_http_is_l7rsp(behaviour: Behaviour) -> None:
    """What the protocol does not allow, and what we refuse to read to the end."""
    with serving(behaviour) as address:
        result = await ask(address)
    assert (result.code, result.verdict, result.status) == (Code.L7RSP, Verdict.FAIL, None)
    assert 0 < len(result.detail) <= 200


async def test_an_answer_that_never_began_is_told_from_one_cut_short() -> None:
    """How much came before the end is the first thing one asks."""
    with serving(answering(b"")) as address:
        assert (await ask(address)).detail == "closed after 0 bytes, before an answer"
    with serving(_half) as address:
        assert (await ask(address)).detail == "closed after 27 bytes, before an answer"


async def test_plain_http_to_a_tls_port_is_l7rsp(good: Certificate) -> None:
    """The server closes, or answers with an alert; neither is HTTP."""
    with serving(Connection.hold, tls=tls_context(good.file)) as address:
        result = await ask(address)
    assert result.code is Code.L7RSP


def _trickle_headers(connection: Connection) -> None:
    connection.request()
    connection.trickle(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000)


def _trickle_body(connection: Connection) -> None:
    connection.request()
    connection.sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    connection.trickle(b"x" * 1000)


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [(Connection.hold, None), (_trickle_headers, None), (_trickle_body, 200)],
    ids=["silent", "slow headers", "slow body"],
)
async def test_an_answer_without_end_is_l7tout(behaviour: Behaviour, status: int | None) -> None:
    """One byte at a time does not move the deadline; what was learnt until then is kept."""
    with serving(behaviour) as address:
        result = await ask(address, method="GET", body="x", timeout_s=SHORT_S)
    assert (result.code, result.verdict, result.status) == (Code.L7TOUT, Verdict.FAIL, status)
    assert result.connect_ms is not None
    assert result.response_ms is None


@pytest.mark.parametrize(
    ("answer", "pattern", "code"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nall is well", "is well$", Code.L7OK),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nall is well", "^well", Code.L7STS),
        (b"HTTP/1.0 200 OK\r\n\r\nall is well", "is well$", Code.L7OK),
        (
            CHUNKED + b"4;a=b\r\nall \r\n7\r\nis well\r\n0\r\nTrailer: x\r\n\r\n",
            "^all is well$",
            Code.L7OK,
        ),
        ("HTTP/1.0 200 OK\r\n\r\nschön".encode(), "^schön$", Code.L7OK),
        (b"HTTP/1.0 200 OK\r\n\r\n\xff", "^.$", Code.L7OK),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "x", Code.L7STS),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nall is well", "well", Code.L7RSP),
        (CHUNKED + b"xyz\r\n", "x", Code.L7RSP),
    ],
    ids=[
        "length", "no match", "until the end", "chunked", "UTF-8", "not UTF-8", "no body",
        "cut off", "bad chunk",
    ],
)  # fmt: skip
async def test_a_body_is_matched_in_all_its_framings(
    answer: bytes, pattern: str, code: Code
) -> None:
    """A body that does not match is L7STS; one that breaks its framing is L7RSP."""
    with serving(answering(answer)) as address:
        result = await ask(address, method="GET", body=pattern)
    assert result.code is code


def _huge_body(connection: Connection) -> None:
    connection.request()
    connection.sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nbegin")
    connection.flood(b"x" * 4096)


def _tiny_chunks(connection: Connection) -> None:
    connection.request()
    connection.sock.sendall(CHUNKED)
    connection.flood(b"1;" + b"a" * 2000 + b"\r\nx\r\n")


async def test_a_huge_body_is_read_no_further_than_64_kib() -> None:
    """What is looked for must be in the first 64 KiB; the rest is never read."""
    with serving(_huge_body) as address:
        assert (await ask(address, method="GET", body="^begin")).code is Code.L7OK
        assert (await ask(address, method="GET", body="^beginx{65531}$")).code is Code.L7OK
        assert (await ask(address, method="GET", body="end")).code is Code.L7STS


async def test_a_body_of_nothing_but_framing_is_bounded() -> None:
    """Chunks of one byte under kilobytes of extensions end as L7RSP."""
    with serving(_tiny_chunks) as address:
        result = await ask(address, method="GET", body="y")
    assert result.code is Code.L7RSP


@pytest.mark.parametrize(
    "parts",
    [b"HTTP/1.1 102 Processing\r\n\r\n" * 500 + OK, CHUNKED + b"1\r\na\r\n" * 500 + b"0\r\n\r\n"],
    ids=["interim", "chunks"],
)
async def test_an_answer_in_many_parts_leaves_the_loop_to_others(parts: bytes) -> None:
    """All of it is there at once, and yet others have a turn between any two parts."""

    class AllThere:
        async def send(self, data: bytes) -> None:
            assert data

        async def receive(self) -> bytes:
            return parts

    async def converse() -> str:
        conversation = Conversation(AllThere())
        assert await conversation.status(Request.build(host="x", method="GET")) == 200
        return await conversation.body()

    conversing, turns = asyncio.ensure_future(converse()), 0
    while not conversing.done():
        await asyncio.sleep(0)
        turns += 1
    assert (await conversing).strip("a") == ""
    assert turns > 500


async def test_no_body_is_read_when_none_is_asked_for() -> None:
    """The answer is known with its headers; a body without end does not matter."""
    with serving(_huge_body) as address:
        result = await ask(address, method="GET")
    assert result.code is Code.L7OK


async def test_an_early_answer_counts_although_the_server_resets() -> None:
    """A server that answers without reading the request and resets has answered."""

    def behave(connection: Connection) -> None:
        connection.sock.sendall(OK)
        connection.hold()
        connection.reset()

    with serving(behave) as address:
        assert (await ask(address)).code is Code.L7OK


# --- manners ------------------------------------------------------------------------------------


@pytest.fixture
def no_descriptor_left() -> Iterator[None]:
    """Every descriptor opened by the test is closed at its end."""
    before = descriptors()
    yield
    assert descriptors() == before


@pytest.mark.usefixtures("no_descriptor_left")
@pytest.mark.parametrize("tls", [None, Tls(server_name="localhost")], ids=["plain", "tls"])
async def test_cancellation_closes_the_socket(tls: Tls | None) -> None:
    """A cancelled exchange is gone at once, with its socket; the cancellation is passed on."""
    with serving(Connection.hold) as address:
        target = Target(address=read_address(address), tls=tls)
        request = Request.build(host="x")
        for rounds in range(8):
            task = asyncio.ensure_future(exchange(target, request, timeout_s=LONG_S))
            for _ in range(rounds):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


@pytest.mark.usefixtures("no_descriptor_left")
async def test_neither_answers_nor_failures_leave_anything_behind() -> None:
    """Neither sockets nor reference cycles that wait for the collector."""
    address = f"127.0.0.1:{free_port()}"
    with serving(answering(OK)) as served:
        await ask(served)
        gc.collect()
        gc.disable()
        try:
            for _ in range(100):
                await ask(served)
                await ask(address)
            assert gc.collect() < 20
        finally:
            gc.enable()


async def test_a_connection_ends_with_a_reset() -> None:
    """No port is left in TIME_WAIT: the server sees a RST, as from HAProxy's own checks."""
    ends: list[bool] = []

    def behave(connection: Connection) -> None:
        try:
            connection.hold()
        except ConnectionResetError:
            ends.append(True)
        else:
            ends.append(False)

    with serving(behave) as address:
        assert (await knock(address)).code is Code.L4OK
        wait_until(lambda: ends, "the server sees the end")
    assert ends == [True]


async def test_a_deadline_missed_by_ourselves_is_unknown() -> None:
    """When this process did not run (a stalled host), the other side is not to blame."""
    with serving(Connection.hold) as address:
        asyncio.get_running_loop().call_later(0.01, time.sleep, SHORT_S + 2 * HELD_UP_S)
        result = await ask(address, timeout_s=SHORT_S)
    assert (result.code, result.verdict) == (Code.UNK, Verdict.UNKNOWN)


async def test_the_proxy_header_comes_before_everything() -> None:
    """A bind with accept-proxy reads it before TLS."""
    first: list[bytes] = []

    def behave(connection: Connection) -> None:
        first.append(connection.sock.recv(4096))

    with serving(behave) as address:
        for tls in (None, Tls(server_name="localhost")):
            target = Target(address=read_address(address), tls=tls, proxy_protocol=ProxyProtocol.V2)
            await exchange(target, Request.build(host="x"), timeout_s=LONG_S)
    assert [data[:12] for data in first] == [b"\r\n\r\n\0\r\nQUIT\n"] * 2
