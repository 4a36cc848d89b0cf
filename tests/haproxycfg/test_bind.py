"""read_binds() on every notation of an address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel.haproxycfg.bind import Bind, read_binds
from sentinel.haproxycfg.words import split


@pytest.mark.parametrize(
    ("written", "address", "ports"),
    [
        (":80", "0.0.0.0", (80, 80)),
        ("*:80", "0.0.0.0", (80, 80)),
        ("0.0.0.0:80", "0.0.0.0", (80, 80)),
        ("192.0.2.1:8000-8010", "192.0.2.1", (8000, 8010)),
        (":::80", "::", (80, 80)),
        ("[::]:80", "::", (80, 80)),
        ("[::1]:80", "::1", (80, 80)),
        ("2001:db8::1:80", "2001:db8::1", (80, 80)),
        ("ipv4@:80", "0.0.0.0", (80, 80)),
        ("ipv6@:80", "::", (80, 80)),
        ("ipv6@*:80", "::", (80, 80)),
        ("tcp4@127.0.0.1:80", "127.0.0.1", (80, 80)),
        ("stream+ipv4@127.0.0.1:80", "127.0.0.1", (80, 80)),
        ("mptcp6@[::1]:80", "::1", (80, 80)),
        ("localhost:80", "localhost", (80, 80)),
    ],
)
def test_internet_addresses(written: str, address: str, ports: tuple[int, int]) -> None:
    """Families, wildcards, brackets and ranges."""
    (bind,) = read_binds([written])
    assert (bind.address, (bind.port, bind.port_end), bind.path) == (address, ports, "")


@pytest.mark.parametrize("written", ["/run/a.sock", "unix@/run/a.sock", "stream+unix@/run/a.sock"])
def test_unix_sockets_take_the_prefix(written: str) -> None:
    """``unix-bind prefix`` is put before every path."""
    (bind,) = read_binds([written], "/jail")
    assert (bind.address, bind.path) == ("", "/jail/run/a.sock")


@pytest.mark.parametrize(
    "written",
    [
        "fd@x", "abns@name", "sockpair@4", "quic4@:443", "udp@:53", "dgram+ipv4@:53", "rhttp@be/s",
        "unix@relative", "192.0.2.1", ":0", ":80-70", ":99999", ":http", "[::1]", "@", ":",
    ],
)  # fmt: skip
def test_nobody_can_connect_to_the_rest(written: str) -> None:
    """What is unknown, no byte stream or a mistake keeps its words, and has no address."""
    assert list(read_binds([written], "/jail")) == [Bind(written=written)]


@pytest.mark.parametrize("written", ["fd@3", "stream+fd@3"])
def test_an_inherited_socket_is_known_by_its_number(written: str) -> None:
    """Where it listens, only the process that has it can tell."""
    assert list(read_binds([written], "/jail")) == [Bind(written=written, descriptor=3)]


def test_one_line_may_hold_several() -> None:
    """Addresses are separated by commas and share the options."""
    first, second = read_binds([":80,[::1]:81", "ssl", "crt", "/a/b.pem"])
    assert (first.port, second.port, first.ssl, second.ssl) == (80, 81, True, True)


def test_options() -> None:
    """The options that matter to a probe are found, and values are not taken for options."""
    line = (
        ":443 ssl crt accept-proxy verify required strict-sni v4v6 transparent interface eth0"
        " namespace blue proto h2 name ssl-in accept-netscaler-cip 0x1 unheard-of"
    )
    assert list(read_binds(split(line, {}))) == [
        Bind(
            written=":443",
            address="0.0.0.0",
            port=443,
            port_end=443,
            ssl=True,
            accept_proxy=False,
            accept_netscaler=True,
            client_certificate=True,
            strict_sni=True,
            v4v6=True,
            transparent=True,
            interface="eth0",
            namespace="blue",
            proto="h2",
            name="ssl-in",
        )
    ]


def test_the_magic_of_netscaler_is_no_option() -> None:
    """It is a number, but whatever it is, it belongs to the option."""
    (bind,) = read_binds([":80", "accept-netscaler-cip", "ssl"])
    assert (bind.accept_netscaler, bind.ssl) == (True, False)


def test_v6only_overrides_v4v6() -> None:
    """As the manual says, whatever their order."""
    (bind,) = read_binds(["[::]:80", "v6only", "v4v6"])
    assert (bind.v4v6, bind.v6only, bind.reachable_at(80)) == (False, True, "[::1]:80")


@pytest.mark.parametrize(
    ("written", "option", "place"),
    [
        (":80", "", "127.0.0.1:81"),
        (":::80", "", "[::1]:81"),
        (":::80", "v4v6", "127.0.0.1:81"),
        ("[2001:db8::1]:80", "", "[2001:db8::1]:81"),
        ("192.0.2.1:80", "", "192.0.2.1:81"),
        ("/run/a.sock", "", "/run/a.sock"),
    ],
)
def test_wildcards_are_reached_on_loopback(written: str, option: str, place: str) -> None:
    """The one port that is asked for, on an address of this node."""
    (bind,) = read_binds([written, option])
    assert bind.reachable_at(81) == place


@given(st.lists(st.text(), min_size=1), st.text())
def test_nothing_is_refused(words: list[str], prefix: str) -> None:
    """Whatever follows ``bind``, it is read."""
    assert all(isinstance(bind, Bind) for bind in read_binds(words, prefix))
