"""The PROXY protocol's header, byte by byte."""

from __future__ import annotations

import socket

import pytest

from sentinel.config import ProxyProtocol
from sentinel.exchange.proxyprotocol import header


@pytest.mark.parametrize(
    ("target", "source", "family"),
    [("127.0.0.1", "127.0.0.2", "TCP4"), ("::1", "::1", "TCP6")],
)
def test_version_1_names_the_connection_itself(target: str, source: str, family: str) -> None:
    """Section 2.1: a health check sends getsockname() and getpeername()."""
    with socket.create_server((target, 0), family=_family(target)) as listener:
        to_port = listener.getsockname()[1]
        with socket.create_connection((target, to_port), source_address=(source, 0)) as sock:
            from_port = sock.getsockname()[1]
            expected = f"PROXY {family} {source} {target} {from_port} {to_port}\r\n"
            assert header(ProxyProtocol.V1, sock) == expected.encode()


def test_version_1_has_no_word_for_unix_sockets() -> None:
    """UNKNOWN is what is left where there are no addresses."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert header(ProxyProtocol.V1, ours) == b"PROXY UNKNOWN\r\n"


def test_version_2_is_local_without_addresses() -> None:
    """Section 2.2: signature, version 2 and LOCAL, AF_UNSPEC, no address bytes."""
    with socket.socket() as sock:
        local = header(ProxyProtocol.V2, sock)
    assert local == bytes.fromhex("0d0a0d0a000d0a515549540a 20 00 0000")


def test_none_is_nothing() -> None:
    """A bind without accept-proxy gets no header."""
    with socket.socket() as sock:
        assert header(ProxyProtocol.NONE, sock) == b""


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
