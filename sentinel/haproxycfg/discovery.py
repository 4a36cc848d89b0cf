"""Choose what to probe: HAProxy's own listeners, one probe each, when a person has written none.

A discovered probe asks as little as it can: any well-formed answer passes, since a 503 tells of the
servers and not of the frontend. ``HEAD`` is right for ``monitor-uri`` too: HAProxy compares the
target alone and answers any method. Pure: what listens, and which addresses are here, is given.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from sentinel.config import Probe, ProbeType, ProxyProtocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from sentinel.haproxycfg.bind import Bind
    from sentinel.haproxycfg.parser import Frontend, HaproxyCfg

DISCOVERED_MAX: Final = 16
_PORT_CHARS_MAX: Final = len("65535")
_NONE_INHERITED: Final[Mapping[int, tuple[str, int]]] = MappingProxyType({})
_MODES: Final = frozenset({"tcp", "http", "health"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """What was found, and in words what is not probed and why."""

    probes: tuple[Probe, ...] = ()
    notes: tuple[str, ...] = ()


def discover(
    cfg: HaproxyCfg,
    listening: Collection[str] | None = None,
    local: Collection[str] | None = None,
    inherited: Mapping[int, tuple[str, int]] = _NONE_INHERITED,
) -> Discovery:
    """Turn frontends into probes; every frontend gets its first before any gets its second.

    *listening* is where the worker really listens, written ``HOST:PORT`` or ``[IPv6]:PORT`` with
    numeric hosts; *local* holds this node's addresses, without which a bind on a VIP that is on the
    peer (``transparent``, or net.ipv4.ip_nonlocal_bind) would be answered by the peer. None:
    unknown, taken as all of them. *inherited* tells where the worker's descriptors listen (``bind
    fd@3``): a numeric address and a port, or a path and 0.
    """
    open_at = None if listening is None else _ports_by_host(listening)
    here = None if local is None else frozenset(map(_normal, local))
    used = {stats.path for stats in cfg.stats_sockets}
    names: set[str] = set()
    probes: list[Probe] = []
    notes: list[str] = []
    unprobed = 0
    for frontend, written in _in_turn(cfg):
        bind = _located(written, inherited)
        port = _open_port(bind, open_at)
        reason = _why_not(bind, here)
        if reason or port is None:
            reason = reason or "nothing listens there now"
            notes.append(f"frontend {frontend.name}, bind {bind.written}: not probed: {reason}")
            continue
        address = bind.reachable_at(port)
        if address in used:
            continue
        used.add(address)
        if len(probes) == DISCOVERED_MAX:
            unprobed += 1
            continue
        short, long = (f"frontend/{frontend.name}:{end}" for end in (port, address))
        name = long if bind.path or short in names else short
        names.add(name)
        probes.append(_probe(frontend, bind, address, name))
    if unprobed:
        notes.append(
            f"{unprobed} more listeners are not probed: {DISCOVERED_MAX} are discovered at most;"
            " write a [[probe]] for each that matters"
        )
    return Discovery(probes=tuple(probes), notes=tuple(notes))


def _in_turn(cfg: HaproxyCfg) -> Iterator[tuple[Frontend, Bind]]:
    """Yield all first binds, then all second ones, and so on."""
    serving = [fe for fe in cfg.frontends if not fe.disabled and fe.mode in _MODES]
    ranked = [(rank, fe, bind) for fe in serving for rank, bind in enumerate(fe.binds)]
    for _, frontend, bind in sorted(ranked, key=lambda entry: entry[0]):
        yield frontend, bind


def _located(bind: Bind, inherited: Mapping[int, tuple[str, int]]) -> Bind:
    """Give a bind on a descriptor the address that its socket has."""
    if bind.descriptor is None or bind.descriptor not in inherited:
        return bind
    address, port = inherited[bind.descriptor]
    if port:
        return replace(bind, address=address, port=port, port_end=port)
    return replace(bind, path=address) if address.startswith("/") else bind


def _why_not(bind: Bind, here: frozenset[str] | None) -> str:
    """Say why a bind cannot be reached from here, or ""."""
    if bind.descriptor is not None and not bind.address and not bind.path:
        return f"where descriptor {bind.descriptor} listens is not known now"
    if not bind.address and not bind.path:
        return "sentinel knows no address to connect to"
    if bind.namespace:
        return f"it is in the network namespace {bind.namespace}"
    if bind.interface not in {"", "lo"}:
        return f"it takes clients of the interface {bind.interface} alone"
    address = _ip(bind.address)
    remote = address is not None and not address.is_loopback and not address.is_unspecified
    if remote and here is not None and str(address) not in here:
        return f"{address} is not on this node now"
    return ""


def _ports_by_host(listening: Collection[str]) -> dict[str, list[int]]:
    """Return the ports that are open at each host, ascending; a Unix socket has none."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for place in listening:
        host, _, port = place.rpartition(":")
        if port.isdecimal() and len(port) <= _PORT_CHARS_MAX:
            found[host].append(int(port))
    by_host: defaultdict[str, list[int]] = defaultdict(list)
    for host, ports in found.items():
        by_host[_normal(host.strip("[]"))] += ports
    return {host: sorted(ports) for host, ports in by_host.items()}


def _open_port(bind: Bind, open_at: Mapping[str, Sequence[int]] | None) -> int | None:
    """Return the bind's first port that is listened on, 0 of a Unix socket; None without any.

    Unix sockets are not looked up: HAProxy binds them under another name and renames them. Nor
    are host names: only HAProxy knows what they resolved to. A range may have 65535 ports, and be
    one of many: what is open is searched for them, and not they for what is open.
    """
    if bind.path:
        return 0
    host = _ip(bind.address)
    if open_at is None or host is None:
        return bind.port
    ports = open_at.get(str(host), ())
    at = bisect_left(ports, bind.port)
    return ports[at] if at < len(ports) and ports[at] <= bind.port_end else None


def _probe(frontend: Frontend, bind: Bind, address: str, name: str) -> Probe:
    kind = _type(frontend, bind)
    http = kind in {ProbeType.HTTP, ProbeType.HTTPS}
    return Probe(
        name=name,
        type=kind,
        address=address,
        path=(frontend.monitor_uri or "/") if http else "/",
        proxy_protocol=ProxyProtocol.V2 if bind.accept_proxy else ProxyProtocol.NONE,
        discovered=True,
    )


def _type(frontend: Frontend, bind: Bind) -> ProbeType:
    """Return the highest layer that a stranger without certificate or server name can speak."""
    if bind.client_certificate or bind.strict_sni or bind.accept_netscaler:
        return ProbeType.TCP
    if frontend.mode == "http" and bind.proto in {"", "h1"}:
        return ProbeType.HTTPS if bind.ssl else ProbeType.HTTP
    return ProbeType.TLS if bind.ssl else ProbeType.TCP


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _normal(host: str) -> str:
    """Spell an address in one way, and leave what is none as it is."""
    return str(_ip(host) or host)
