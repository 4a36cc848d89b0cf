"""Frontend probes: the configuration's words on the wire, and real HAProxies at the other end."""

from __future__ import annotations

import re
import ssl
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from certificates import Certificate, issue
from haproxies import DEFAULTS, free_port, running_haproxy
from servers import Connection, serving, tls_context

from sentinel import __version__
from sentinel.checks.http import ProbeCheck, look
from sentinel.config import Pace, Probe, ProbeType, ProxyProtocol
from sentinel.model import Code, Observation, ProbeView, Scope, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servers import Behaviour

    from sentinel.checks import Check

PACE = Pace(timeout_s=20.0)
DAY_S = 86400.0
SEEN_BY_HAPROXY = '"from %[src] to %[dst]:%[dst_port] as %[req.hdr(host)]"'


async def probe(**settings: Any) -> tuple[Observation, ProbeView]:
    """Probe once as configured."""
    check: Check = ProbeCheck(Probe(pace=PACE, **settings))
    observation = await check()
    assert isinstance(observation.view, ProbeView)
    return observation, observation.view


def noting(requests: list[str]) -> Behaviour:
    """Answer 200 and keep the requests."""

    def behave(connection: Connection) -> None:
        requests.append(connection.request())
        connection.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    return behave


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for localhost and 127.0.0.1 that is good for ten days."""
    return issue(tmp_path_factory.mktemp("certificate"), good_for=timedelta(days=10))


async def test_the_default_request_is_a_head_that_asks_to_be_closed() -> None:
    """Nothing configured but the address: HEAD /, Host, who asks, and no keep-alive."""
    requests: list[str] = []
    with serving(noting(requests)) as address:
        await probe(address=address)
    (head,) = requests
    assert head.split("\r\n") == [
        "HEAD / HTTP/1.1",
        f"Host: {address}",
        f"User-Agent: sentinel/{__version__}",
        "Connection: close",
        "",
        "",
    ]


async def test_the_request_is_what_is_configured() -> None:
    """Method, path, host and headers; a configured header replaces our own of that name."""
    requests: list[str] = []
    with serving(noting(requests)) as address:
        await probe(
            address=address,
            method="GET",
            path="/health?deep=1",
            host="www.example",
            headers=("X-Probe: a: b", "user-agent: other"),
        )
    (head,) = requests
    assert head.split("\r\n") == [
        "GET /health?deep=1 HTTP/1.1",
        "Host: www.example",
        "Connection: close",
        "X-Probe: a: b",
        "user-agent: other",
        "",
        "",
    ]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, None),
        ({"host": "www.example:8443"}, "www.example"),
        ({"host": "www.example", "sni": "inner.example"}, "inner.example"),
        ({"host": "[::1]:443"}, None),
    ],
    ids=["an address is no name", "of the Host", "its own", "an IPv6 Host is no name"],
)
async def test_the_server_name_is_that_of_the_host_unless_set(
    settings: dict[str, str], name: str | None, certificate: Certificate
) -> None:
    """SNI carries names alone (RFC 6066, section 3)."""
    seen: list[str | None] = []

    def note(_sock: ssl.SSLObject, server_name: str | None, _context: ssl.SSLContext) -> None:
        seen.append(server_name)

    context = tls_context(certificate.file)
    context.sni_callback = note
    with serving(noting([]), tls=context) as address:
        observation, _ = await probe(type=ProbeType.HTTPS, address=address, **settings)
    assert observation.code is Code.L7OK
    assert seen == [name]


async def test_an_observation_tells_where_the_time_went(certificate: Certificate) -> None:
    """One line a person can read, and the same as numbers."""
    with serving(noting([]), tls=tls_context(certificate.file)) as address:
        observation, view = await probe(name="site", type=ProbeType.HTTPS, address=address)
    assert (observation.check, observation.scope) == ("site", Scope.FRONTEND)
    assert (observation.verdict, observation.code) == (Verdict.PASS, Code.L7OK)
    number = r"\d+\.\d"
    assert re.fullmatch(
        rf"status 200 in {number} ms \(connect {number}, tls {number}, response {number}\); "
        r"certificate good for (9\.9|10\.0) days",
        observation.detail,
    )
    assert view.status == 200
    phases = (view.connect_ms, view.tls_ms, view.response_ms)
    assert 0 < sum(ms or 0.0 for ms in phases) <= observation.duration_ms


async def test_a_failure_keeps_what_was_learnt_before_it() -> None:
    """The phases that were completed stay in detail and view."""
    with serving(Connection.hold) as address:
        check = ProbeCheck(Probe(address=address, pace=Pace(timeout_s=0.1)))
        observation = await check()
    assert (observation.verdict, observation.code) == (Verdict.FAIL, Code.L7TOUT)
    assert re.fullmatch(
        r"no answer within 0\.1 s in \d+\.\d ms \(connect \d+\.\d\)", observation.detail
    )


@pytest.mark.parametrize(
    ("later_days", "within_days", "told"),
    [(0, 14, "good for 10.0 days"), (0, 5, "good for 10.0 days"), (12, 0, "expired 2.0 days ago")],
)
async def test_an_expiry_warns_and_never_fails(
    later_days: int, within_days: int, told: str, certificate: Certificate
) -> None:
    """The certificate's end is compared with the wall clock, whatever the verdict."""
    settings = Probe(type=ProbeType.TLS, pace=PACE, expires_within_s=within_days * DAY_S)
    now_s = certificate.not_after.timestamp() - 10 * DAY_S
    with serving(Connection.hold, tls=tls_context(certificate.file)) as address:
        check = ProbeCheck(
            replace(settings, address=address), wall_clock=lambda: now_s + later_days * DAY_S
        )
        observation = await check()
    view = observation.view
    assert isinstance(view, ProbeView)
    left_days = 10 - later_days
    assert observation.code is Code.L6OK
    assert view.certificate_left_s == left_days * DAY_S
    assert view.expiring == (left_days < within_days)
    assert told in observation.detail


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"address": "127.0.0.1"}, "HOST:PORT"),
        ({"path": "/a b"}, "request HEAD /a b"),
        ({"headers": ("no colon",)}, 'write "Name: value"'),
        ({"headers": ("X: a\nInjected: b",)}, "request HEAD /"),
        ({"headers": ("Ünsafe: x",)}, "request HEAD /"),
        ({"host": "a\r\nb"}, "request HEAD /"),
        ({"expect": ("2xx",)}, '"200" or "200-399"'),
        ({"expect": ("399-200",)}, "the lower status comes first"),
        ({"body": "("}, "no regular expression"),
        ({"type": ProbeType.TLS, "sni": "a..b"}, "no server name"),
    ],
)
async def test_a_probe_that_cannot_be_carried_out_is_refused_when_built(
    settings: dict[str, Any], message: str
) -> None:
    """Mistakes in the configuration are told once, not at every probe; a look is UNKNOWN."""
    wrong = replace(Probe(address="127.0.0.1:80"), **settings)
    with pytest.raises(ValueError, match=re.escape(message)):
        ProbeCheck(wrong)
    code, detail = await look(wrong)
    assert code is Code.UNK
    assert message in detail


async def test_a_look_is_the_same_probe_without_a_check() -> None:
    """What the backends check uses for its servers."""
    with serving(noting([])) as address:
        code, detail = await look(Probe(address=address, pace=PACE))
    assert code is Code.L7OK
    assert detail.startswith("status 200 in ")


# --- real HAProxies -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def binds(
    tmp_path_factory: pytest.TempPathFactory, certificate: Certificate
) -> Iterator[dict[str, str]]:
    """One HAProxy with a bind of every kind; the addresses by kind."""
    folder: Path = tmp_path_factory.mktemp("haproxy")
    addresses = {
        "plain": f"127.0.0.1:{free_port()}",
        "tls": f"127.0.0.1:{free_port()}",
        "proxied": f"127.0.0.1:{free_port()}",
        "proxied tls": f"127.0.0.1:{free_port()}",
        "ipv6": f"[::1]:{free_port('::1')}",
        "proxied ipv6": f"[::1]:{free_port('::1')}",
        "unix": str(folder / "frontend.sock"),
        "proxied unix": str(folder / "proxied.sock"),
    }
    crt = f"ssl crt {certificate.file}"
    options = {"tls": crt, "proxied tls": f"accept-proxy {crt}"}
    lines = []
    for kind, address in addresses.items():
        extra = options.get(kind, "accept-proxy" if kind.startswith("proxied") else "")
        lines.append(f"    bind {address.replace('[::1]', '::1')} {extra}")
    bind_lines = "\n".join(lines)
    config = f"""{DEFAULTS}
frontend fe
{bind_lines}
    http-request deny deny_status 503 if {{ path /down }}
    http-request return status 200 content-type text/plain lf-string {SEEN_BY_HAPROXY}
"""
    with running_haproxy(config, folder):
        yield addresses


@pytest.mark.real
@pytest.mark.parametrize("kind", ["plain", "ipv6", "unix"])
async def test_a_real_frontend_answers(kind: str, binds: dict[str, str]) -> None:
    """IPv4, IPv6 and Unix sockets: L4OK and L7OK, and L7STS for what it denies."""
    address = binds[kind]
    assert (await probe(type=ProbeType.TCP, address=address))[0].code is Code.L4OK
    assert (await probe(address=address, expect=("200",)))[0].code is Code.L7OK
    down, view = await probe(address=address, path="/down", expect=("200-399",))
    assert (down.code, view.status) == (Code.L7STS, 503)


@pytest.mark.real
@pytest.mark.parametrize("version", [ProxyProtocol.V1, ProxyProtocol.V2])
@pytest.mark.parametrize("kind", ["proxied", "proxied ipv6", "proxied unix", "proxied tls"])
async def test_a_real_accept_proxy_bind_is_content(
    kind: str, version: ProxyProtocol, binds: dict[str, str]
) -> None:
    """Both versions go in front of plain and of TLS, and keep the connection's own addresses."""
    body = {
        "proxied": rf"^from 127\.0\.0\.1 to {re.escape(binds[kind])} as ",
        "proxied ipv6": r"^from ::1 to ::1:\d+ as \[::1\]",
        "proxied unix": "as localhost$",
        "proxied tls": rf"^from 127\.0\.0\.1 to {re.escape(binds[kind])} as ",
    }[kind]
    observation, _ = await probe(
        type=ProbeType.HTTPS if kind.endswith("tls") else ProbeType.HTTP,
        address=binds[kind],
        method="GET",
        expect=("200",),
        body=body,
        proxy_protocol=version,
    )
    assert (observation.code, observation.verdict) == (Code.L7OK, Verdict.PASS), observation.detail


@pytest.mark.real
async def test_a_real_accept_proxy_bind_refuses_what_has_no_header(binds: dict[str, str]) -> None:
    """Without the header HAProxy hangs up: L7RSP, not silence."""
    assert (await probe(address=binds["proxied"]))[0].code is Code.L7RSP


@pytest.mark.real
async def test_a_real_tls_frontend_is_verified(
    binds: dict[str, str], certificate: Certificate
) -> None:
    """TLS alone and HTTPS, by name and by address; a wrong name is L6RSP."""
    tls = {"address": binds["tls"], "verify": True, "ca_file": str(certificate.file)}
    only, view = await probe(type=ProbeType.TLS, **tls)
    assert only.code is Code.L6OK
    assert view.expiring
    assert (await probe(type=ProbeType.HTTPS, host="localhost", **tls))[0].code is Code.L7OK
    wrong, _ = await probe(type=ProbeType.HTTPS, host="other.example", **tls)
    assert wrong.code is Code.L6RSP
    assert "Hostname mismatch" in wrong.detail


@pytest.mark.real
async def test_http_and_tls_ports_mistaken_for_each_other(binds: dict[str, str]) -> None:
    """HTTP to a TLS bind is L7RSP, TLS to a plain bind L6RSP."""
    assert (await probe(address=binds["tls"]))[0].code is Code.L7RSP
    assert (await probe(type=ProbeType.HTTPS, address=binds["plain"]))[0].code is Code.L6RSP
