"""The servers that haproxy.cfg names, and where a client can ask a frontend. Pure.

A server's name that is no address gets one of 198.18.1.0/24 (RFC 2544: for benchmarks), which the
nodes learn from /etc/hosts.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from sentinel.haproxycfg import HaproxyCfg
from sentinel.haproxycfg.bind import WILDCARDS
from sentinel.haproxycfg.words import split

INVENTED: Final = "198.18.1."
_INVENTED_MAX: Final = 250
_LOCAL: Final = ("/", "unix@", "abns@", "sockpair@")
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


def read_servers(text: str) -> Servers:
    """Read all ``server`` lines and the ports of their checks."""
    places: list[Place] = []
    names: dict[str, str] = {}
    notes: list[str] = []
    for words in (split(line, {}) for line in text.split("\n")):
        if words[:1] == ["server-template"]:
            notes.append(f"{words[0]} {' '.join(words[1:3])}: no stub server stands behind it")
        if words[:1] != ["server"] or len(words) < len(["server", "name", "address"]):
            continue
        host, ports = _where(words[2:])
        if not ports:
            notes.append(f"server {words[1]} {words[2]}: no stub server stands behind it")
            continue
        if "ssl" in words[3:]:
            notes.append(f"server {words[1]}: the stub behind it speaks no TLS, so it will be down")
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
    if not port.isdecimal() or not host or words[0].startswith(_LOCAL):
        return "", []
    numbers = [int(port)]
    numbers += (
        int(number) for option, number in pairwise(words) if option == "port" and number.isdecimal()
    )
    return host.strip("[]"), numbers


def choose_target(cfg: HaproxyCfg, vips: Sequence[str]) -> Target | None:
    """Return where a client asks for a web page through a VIP; plain HTTP before the rest."""
    found = sorted(_targets(cfg, vips), key=lambda ranked: ranked[0])
    return found[0][1] if found else None


def _targets(cfg: HaproxyCfg, vips: Sequence[str]) -> Iterator[tuple[_Rank, Target]]:
    for frontend in cfg.frontends:
        for bind in frontend.binds:
            closed = bind.accept_proxy or bind.client_certificate or bind.namespace
            if frontend.disabled or closed or not bind.port:
                continue
            for vip in vips:
                wild = bind.address in WILDCARDS and (":" in bind.address) == (":" in vip)
                if wild or bind.address == vip:
                    rank = (bind.ssl, frontend.mode != "http", ":" in vip)
                    place = Place(host=vip, port=bind.port)
                    yield rank, Target(place=place, tls=bind.ssl)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
