"""discover(): which listeners are probed, how, and which are left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from calls import counting_calls
from configurations import ARTICLE
from haproxies import DEFAULTS, free_port, running_haproxy
from hypothesis import given
from hypothesis import strategies as st

from sentinel.checks.http import look
from sentinel.config import OnFail, Probe, ProbeType, ProxyProtocol
from sentinel.haproxycfg import Discovery, discover, parse, read
from sentinel.haproxycfg.discovery import DISCOVERED_MAX
from sentinel.model import Code

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path


def found(
    text: str,
    listening: Collection[str] | None = None,
    local: Collection[str] | None = None,
) -> Discovery:
    """Discover in one text."""
    return discover(parse([text], {}), listening, local)


def test_the_article_in_todays_syntax() -> None:
    """The public frontend is asked for /, the one with a monitor-uri for that."""
    assert found(ARTICLE) == Discovery(
        probes=(
            Probe(name="frontend/http-in:80", address="127.0.0.1:80", discovered=True),
            Probe(
                name="frontend/sentinel:8405",
                address="127.0.0.1:8405",
                path="/healthz",
                discovered=True,
            ),
        )
    )
    assert {probe.on_fail for probe in found(ARTICLE).probes} == {OnFail.YIELD}


@pytest.mark.parametrize(
    ("mode", "options", "kind"),
    [
        ("http", "", ProbeType.HTTP),
        ("http", "ssl crt a.pem alpn h2,http/1.1", ProbeType.HTTPS),
        ("http", "proto h2", ProbeType.TCP),
        ("http", "proto h2 ssl", ProbeType.TLS),
        ("http", "ssl verify required ca-file a.pem", ProbeType.TCP),
        ("http", "ssl verify optional ca-file a.pem", ProbeType.HTTPS),
        ("http", "ssl strict-sni", ProbeType.TCP),
        ("http", "accept-netscaler-cip 1", ProbeType.TCP),
        ("tcp", "", ProbeType.TCP),
        ("tcp", "ssl", ProbeType.TLS),
        ("health", "", ProbeType.TCP),
    ],
)
def test_the_highest_layer_that_a_stranger_can_speak(
    mode: str, options: str, kind: ProbeType
) -> None:
    """A client certificate, a server name or HTTP/2 is not ours to have."""
    (probe,) = found(f"frontend fe\nmode {mode}\nmonitor-uri /up\nbind :80 {options}").probes
    assert probe.type is kind
    assert probe.path == ("/up" if kind in {ProbeType.HTTP, ProbeType.HTTPS} else "/")


def test_accept_proxy_gets_its_header() -> None:
    """A bind that waits for a PROXY protocol header is sent one."""
    with_proxy, without = found("listen l\nbind :80 accept-proxy\nbind :81").probes
    assert (with_proxy.proxy_protocol, without.proxy_protocol) == (
        ProxyProtocol.V2,
        ProxyProtocol.NONE,
    )


def test_names_are_unique() -> None:
    """Frontend and port, and the whole address where that is taken."""
    probes = found("frontend fe\nbind :80,:::80,192.0.2.1:80,/run/fe.sock").probes
    assert [(probe.name, probe.address) for probe in probes] == [
        ("frontend/fe:80", "127.0.0.1:80"),
        ("frontend/fe:[::1]:80", "[::1]:80"),
        ("frontend/fe:192.0.2.1:80", "192.0.2.1:80"),
        ("frontend/fe:/run/fe.sock", "/run/fe.sock"),
    ]


def test_some_listeners_are_left_alone() -> None:
    """Disabled frontends and other modes silently; what cannot be reached with a reason."""
    discovery = found("""
global
    stats socket /run/admin.sock
frontend off
    disabled
    bind :80
frontend logs
    mode syslog
    bind :81
frontend fe
    bind /run/admin.sock
    bind fd@3
    bind abns@name
    bind :82 namespace blue
    bind :83 interface eth0
    bind :84 interface lo
    bind 127.0.0.1:84
""")
    assert [probe.address for probe in discovery.probes] == ["127.0.0.1:84"]
    assert discovery.notes == (
        "frontend fe, bind fd@3: not probed: where descriptor 3 listens is not known now",
        "frontend fe, bind abns@name: not probed: sentinel knows no address to connect to",
        "frontend fe, bind :82: not probed: it is in the network namespace blue",
        "frontend fe, bind :83: not probed: it takes clients of the interface eth0 alone",
    )


def test_only_what_listens_is_probed() -> None:
    """The listeners settle conditional blocks, ranges and files not loaded yet."""
    discovery = found(
        "frontend fe\nbind :80\nbind 192.0.2.1:81\nbind :8000-8010\nbind :::82 v4v6\n"
        "bind /run/fe.sock\nbind localhost:83\n",
        listening=["0.0.0.0:80", "0.0.0.0:8005", "[0:0::0]:82", "/run/fe.sock.123.tmp"],
    )
    assert [probe.address for probe in discovery.probes] == [
        "127.0.0.1:80", "127.0.0.1:8005", "127.0.0.1:82", "/run/fe.sock", "localhost:83",
    ]  # fmt: skip
    assert discovery.notes == (
        "frontend fe, bind 192.0.2.1:81: not probed: nothing listens there now",
    )


@given(st.integers(1, 12), st.integers(0, 11), st.sets(st.integers(1, 14)))
def test_of_a_range_the_first_open_port_is_probed(first: int, more: int, ports: set[int]) -> None:
    """However its host and those of the listeners are spelled."""
    hosts = ("[2001:db8::1]", "[2001:DB8:0::1]", "[2001:db8::2]")
    listening = [f"{hosts[port % 2]}:{port}" for port in ports] + [f"{hosts[2]}:1"]
    discovery = found(f"frontend fe\nbind 2001:db8:0:0::1:{first}-{first + more}", listening)
    expected = sorted(ports & set(range(first, first + more + 1)))[:1]
    assert [probe.address for probe in discovery.probes] == [
        f"[2001:db8:0:0::1]:{port}" for port in expected
    ]
    assert len(discovery.notes) == 1 - len(expected)


def test_a_wide_range_costs_no_more_than_its_listeners() -> None:
    """The event loop waits for it: passive FTP has tens of thousands of ports, open or not."""
    few, many = ([f"10.0.0.1:{port}" for port in range(1, end)] for end in (101, 1001))
    binds = [f"frontend fe\nbind 10.0.0.1:{ports}" for ports in ("1", "1-60000", "20000-60000")]
    narrow, *wide = (calls(lambda: found(text, few)) for text in binds)  # noqa: B023  (at once)
    assert max(wide) < 1.2 * narrow
    assert calls(lambda: found(binds[1], many)) - wide[0] < 10 * (len(many) - len(few))


def calls(body: Callable[[], object]) -> int:
    """Count the calls that *body* makes."""
    with counting_calls() as counted:
        body()
    return counted.total()


def test_a_vip_on_the_peer_is_not_probed() -> None:
    """It would be the peer's HAProxy that answers."""
    text = "frontend fe\nbind 192.0.2.1:80 transparent\nbind [2001:db8::0:1]:80\nbind :81\n"
    discovery = found(text, local=["2001:db8::1"])
    assert [probe.address for probe in discovery.probes] == [
        "[2001:db8::0:1]:80",
        "127.0.0.1:81",
    ]
    assert discovery.notes == (
        "frontend fe, bind 192.0.2.1:80: not probed: 192.0.2.1 is not on this node now",
    )
    assert len(found(text).probes) == 3


def test_every_frontend_gets_one_before_any_gets_two() -> None:
    """The number is bounded, the rest is counted, and the cure is named."""
    binds = "".join(f"bind :{port}\n" for port in range(8000, 8020))
    discovery = found(f"frontend many\n{binds}frontend one\nbind :80\n")
    assert len(discovery.probes) == DISCOVERED_MAX
    assert [probe.name for probe in discovery.probes][:2] == [
        "frontend/many:8000",
        "frontend/one:80",
    ]
    (note,) = discovery.notes
    assert note.startswith("5 more listeners are not probed: 16 are discovered at most")


def test_inherited_sockets_are_probed_where_they_listen() -> None:
    """A descriptor stands for an address or a path; an abstract name is out of reach as ever."""
    cfg = parse(["frontend fe\nbind fd@3\nbind fd@4 ssl\nbind fd@5\nbind fd@6\nbind fd@7\n"], {})
    inherited = {
        3: ("0.0.0.0", 80),
        4: ("::", 443),
        5: ("/run/fe.sock", 0),
        6: ("@name", 0),
        7: ("192.0.2.1", 81),
    }
    discovery = discover(cfg, ["0.0.0.0:80", "[::]:443"], ["127.0.0.1"], inherited)
    assert [probe.address for probe in discovery.probes] == [
        "127.0.0.1:80",
        "[::1]:443",
        "/run/fe.sock",
    ]
    assert discovery.notes == (
        "frontend fe, bind fd@6: not probed: where descriptor 6 listens is not known now",
        "frontend fe, bind fd@7: not probed: 192.0.2.1 is not on this node now",
    )


@given(st.lists(st.text()), st.lists(st.text()), st.lists(st.text()))
def test_nothing_is_refused(binds: list[str], listening: list[str], local: list[str]) -> None:
    """Whatever is configured, listens or is local, it is judged."""
    text = "frontend fe\n" + "\n".join(f"bind '{bind}'" for bind in binds)
    found(text, listening, local)


@pytest.mark.real
async def test_what_is_discovered_passes_on_a_real_haproxy(tmp_path: Path) -> None:
    """A frontend without servers answers 503, and that is a well-formed answer."""
    config = f"""{DEFAULTS}
frontend web
    bind 127.0.0.1:{free_port()}
    bind [::1]:{free_port("::1")}
    bind {tmp_path}/web.sock
    default_backend none
frontend health
    bind "127.0.0.1:{free_port()}" accept-proxy
    monitor-uri /healthz
listen raw
    mode tcp
    bind :{free_port()}
backend none
"""
    with running_haproxy(config, tmp_path) as haproxy:
        cfg = read([str(haproxy.config)], {})
        discovery = discover(cfg)
        results = {probe.name.rpartition(":")[0]: await look(probe) for probe in discovery.probes}
    assert cfg.stats_socket == str(haproxy.stats_socket)
    assert len(discovery.probes) == 5
    assert {code for code, _ in results.values()} == {Code.L7OK, Code.L4OK}, results
    assert discovery.notes == ()
