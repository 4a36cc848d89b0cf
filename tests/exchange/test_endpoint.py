"""Addresses become socket addresses and Host headers."""

from __future__ import annotations

import socket

import pytest

from sentinel.address import read_address
from sentinel.exchange.endpoint import authority, resolve


async def test_numeric_addresses_are_taken_as_they_are() -> None:
    """No resolver is asked for numbers, and a zone becomes the interface's index."""
    ipv4 = await resolve(read_address("127.0.0.1:80"))
    assert ipv4 == [(socket.AF_INET, ("127.0.0.1", 80))]
    ipv6 = await resolve(read_address("[fe80::1%lo]:80"))
    assert ipv6 == [(socket.AF_INET6, ("fe80::1", 80, 0, socket.if_nametoindex("lo")))]


async def test_a_path_is_a_unix_socket() -> None:
    """A path needs no resolving at all."""
    assert await resolve(read_address("/run/x.sock")) == [(socket.AF_UNIX, "/run/x.sock")]


async def test_a_name_gives_every_address_it_has() -> None:
    """localhost, from the hosts file, includes 127.0.0.1."""
    assert (socket.AF_INET, ("127.0.0.1", 80)) in await resolve(read_address("localhost:80"))


@pytest.mark.parametrize("text", ["[fe80::1%nosuchzone]:80", "a..b:80", f"{'a' * 64}:80"])
async def test_what_cannot_be_resolved_is_an_error_of_the_world(text: str) -> None:
    """An interface that is gone and a label that is no label raise gaierror alike."""
    with pytest.raises(socket.gaierror):
        await resolve(read_address(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1:80", "192.0.2.1"),
        ("192.0.2.1:8080", "192.0.2.1:8080"),
        ("[2001:db8::1]:80", "[2001:db8::1]"),
        ("[fe80::1%eth0]:8080", "[fe80::1]:8080"),
        ("www.example:81", "www.example:81"),
        ("/run/haproxy.sock", "localhost"),
    ],
)
def test_the_host_header_is_what_a_client_would_send(text: str, expected: str) -> None:
    """The scheme's own port and an IPv6 zone are left out."""
    assert authority(read_address(text), 80) == expected
