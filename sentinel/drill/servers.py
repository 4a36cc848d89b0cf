"""The servers that haproxy.cfg names, and where a client can ask a frontend. Pure.

A server's name that is no address gets one of 198.18.1.0/24 (RFC 2544: for benchmarks), which the
nodes learn from /etc/hosts.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from sentinel.haproxycfg import Bind, Frontend, HaproxyCfg
from sentinel.haproxycfg.bind import WILDCARDS

INVENTED: Final = "198.18.1."
_INVENTED_MAX: Final = 250
_LOCAL: Final = ("/", "unix@", "abns@", "sockpair@")
_LOCALHOST: Final = "127.0.0.1"
_PROXIES: Final = frozenset({"listen", "backend"})
_Rank = tuple[bool, bool, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A numeric address and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        """Write it as HAProxy does."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the client asks: the VIP, a port, and whether it speaks TLS."""

    place: Place
    tls: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Where stub servers must listen; *names* are the hosts whose addresses were invented."""

    places: tuple[Place, ...]
    names: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def read_servers(statements: Iterable[tuple[str, Sequence[str]]]) -> Servers:
    """Read the ``server`` lines of proxies, and the ports of their checks."""
    places: list[Place] = []
    names: dict[str, str] = {}
    notes: list[str] = []
    for section, words in statements:
        if section not in _PROXIES:
            continue  # a peer, or where logs go
        if words[:1] == ["server-template"]:
            notes.append(f"{words[0]} {' '.join(words[1:3])}: no stub server stands behind it")
        if words[:1] != ["server"] or len(words) < len(["server", "name", "address"]):
            continue
        host, ports = _where(words[2:])
        if not ports:
            notes.append(f"server {words[1]} {words[2]}: no stub server stands behind it")
            continue
        if "ssl" in words[3:]:
            notes.append(
                f"server {words[1]}: the stub behind it speaks no TLS, so it will be down; where no"
                " other is up, HAProxy's own answer counts, after its retries"
            )
        if not _is_ip(host):
            host = names.setdefault(host, f"{INVENTED}{len(names) % _INVENTED_MAX + 1}")
        places += (Place(host=host, port=port) for port in ports)
    return Servers(
        places=tuple(dict.fromkeys(places)), names=tuple(names.items()), notes=tuple(notes)
    )


def _where(words: Sequence[str]) -> tuple[str, list[int]]:
    """Return the host of a server and the ports it must answer on, none for what is no TCP."""
    address = words[0].rpartition("@")[2]
    host, _, port = address.rpartition(":")
    host = _spelled(host.strip("[]"))
    if not port.isdecimal() or host in {"", "*", *WILDCARDS} or words[0].startswith(_LOCAL):
        return "", []
    numbers = [int(port)]
    numbers += (
        int(number) for option, number in pairwise(words) if option == "port" and number.isdecimal()
    )
    return _LOCALHOST if host == "localhost" else host, numbers


def beside(cfg: HaproxyCfg, places: Iterable[Place], own: Collection[str]) -> tuple[Place, ...]:
    """Return the places where HAProxy does not listen itself, on the nodes' *own* addresses.

    A frontend may well be the server of another one.
    """
    binds = [bind for frontend in cfg.frontends if not frontend.disabled for bind in frontend.binds]

    def is_haproxys(place: Place) -> bool:
        return _is_on_node(place.host, own) and any(
            bind.port <= place.port <= bind.port_end and _takes(bind, place.host) for bind in binds
        )

    return tuple(place for place in places if not is_haproxys(place))


def on_node(places: Iterable[Place], own: Collection[str]) -> tuple[Place, ...]:
    """Return the places that are on a node with these addresses of its *own*."""
    return tuple(place for place in places if _is_on_node(place.host, own))


def _is_on_node(host: str, own: Collection[str]) -> bool:
    return host in own or ipaddress.ip_address(host).is_loopback


# --- the client's -------------------------------------------------------------------------------


def choose_target(cfg: HaproxyCfg, vips: Sequence[str]) -> Target | None:
    """Return where a client asks for a web page through a VIP; plain HTTP before the rest."""
    found = sorted(_targets(cfg, vips), key=lambda ranked: ranked[0])
    return found[0][1] if found else None


def why_no_target(cfg: HaproxyCfg, vips: Sequence[str]) -> str:
    """Say why there is none, and what helps."""
    for frontend, bind, _ in _reached(cfg, vips):
        if wanted := _wants(bind):
            return (
                f"frontend {frontend.name}, bind {bind.written}, wants {wanted}, which the drill's"
                " client has not: add a bind without it to a copy of the file"
            )
    return (
        f"no frontend listens on a VIP ({', '.join(vips)}): correct a bind, or give the two"
        " keepalived.conf that belong to this file"
    )


def _targets(cfg: HaproxyCfg, vips: Sequence[str]) -> Iterator[tuple[_Rank, Target]]:
    for frontend, bind, vip in _reached(cfg, vips):
        if not _wants(bind):
            rank = (bind.ssl, frontend.mode != "http", ":" in vip)
            place = Place(host=vip, port=bind.port)
            yield rank, Target(place=place, tls=bind.ssl)


def _reached(cfg: HaproxyCfg, vips: Sequence[str]) -> Iterator[tuple[Frontend, Bind, str]]:
    """Yield every listener that is reached at a VIP."""
    for frontend in cfg.frontends:
        for bind in frontend.binds:
            for vip in vips if bind.port and not frontend.disabled else ():
                if _takes(bind, vip):
                    yield frontend, bind, vip


def _takes(bind: Bind, host: str) -> bool:
    """Tell whether a listener is reached at this address of the node.

    Linux gives IPv4 to ``::`` as well (ip(7), bindv6only is 0 in a new namespace), unless HAProxy
    asks it not to (configuration manual, v6only).
    """
    if bind.address not in WILDCARDS:
        return _spelled(bind.address) == host
    if ":" in host:
        return ":" in bind.address
    return not bind.v6only


def _wants(bind: Bind) -> str:
    """Say what a listener wants of a client that is more than HTTP, with or without TLS."""
    wishes = (
        (bind.accept_proxy, "the PROXY protocol"),
        (bind.accept_netscaler, "NetScaler's client IP"),
        (bind.client_certificate, "a client certificate"),
        (bind.strict_sni, "a server name"),
        (bool(bind.namespace), f"the network namespace {bind.namespace}"),
    )
    return next((words for wanted, words in wishes if wanted), "")


def _spelled(host: str) -> str:
    """Spell a numeric address in the one way that ``ipaddress`` has; leave a name alone."""
    return str(ipaddress.ip_address(host)) if _is_ip(host) else host


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
