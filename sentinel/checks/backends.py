"""The backends check: HAProxy's opinion of its servers, and our own look at each of them.

A dead pool is never HAProxy's fault, so nothing here restarts anything. What HAProxy has taken
out on purpose (MAINT, DRAIN) or what asks to be left alone (NOLB) does not count as meant to
serve, and is not probed. Servers listed in several pools are probed once.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from sentinel import runtimeapi
from sentinel.config import OnFail, Probe, ProbeType
from sentinel.model import Code, Observation, PoolView, Scope, ServerView, Verdict
from sentinel.runtimeapi import number

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sentinel.config import Backends, Pace

#: Looks once at what the Probe describes, within its ``pace.timeout_s``; never raises.
Prober = Callable[[Probe], Awaitable[tuple[Code, str]]]

#: Backends (2) and servers (4), then their addresses: 17 ms of HAProxy's time for 1,000 servers.
_QUESTION: Final = "show stat -1 6 -1;show servers state"
_BACKEND_ROW, _SERVER_ROW = "1", "2"
_STAT: Final = ("pxname", "svname", "type", "status", "check_status", "mode")
_STATE: Final = ("be_name", "srv_name", "srv_addr", "srv_port", "srv_use_ssl", "srv_check_port")
_START_GAP_S: Final = 0.001
_NAMED_MAX: Final = 5
_NOT_MEANT: Final = ("MAINT", "DRAIN", "NOLB")
_UNRESOLVED: Final = "MAINT (resolution)"
#: HAProxy before its first result: ``INI``, or a health counter below zero (seen with 3.4).
_NO_RESULT_YET: Final = re.compile(r"(\* )?(INI|UNK)")
_NEGATIVE: Final = re.compile(r"[A-Z]+ -\d+/\d+")
_PASSED: Final = frozenset({Code.L4OK, Code.L6OK, Code.L7OK})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """Where and how to look at a server ourselves; several pools may list the same."""

    address: str
    type: ProbeType


@dataclass(frozen=True, slots=True, kw_only=True)
class _Server:
    """What HAProxy says of one server; no *target*: nothing that we could look at."""

    pool: str
    name: str
    status: str
    up: bool | None
    meant: bool
    target: _Target | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opinion:
    """HAProxy's answer: its pools in its order, those without servers too."""

    pools: tuple[str, ...]
    servers: tuple[_Server, ...]


class BackendsCheck:
    """Ask HAProxy about its servers, then probe them directly, a few at a time.

    Starts are 1 ms apart, or so much less that all begin within half the interval. What cannot
    begin in time, because silent servers keep all ``concurrency`` places busy, begins first in the
    next run and shows its last result until then. So ``pace.timeout_s`` of this check is longer
    than that of one probe: one question, half an interval of starts, and the last probe.
    """

    name: Final = "backends"
    scope: Final = Scope.BACKEND

    def __init__(self, socket: Callable[[], str], settings: Backends, prober: Prober) -> None:
        pace = settings.pace
        self.pace: Final[Pace] = replace(pace, timeout_s=2 * pace.timeout_s + pace.inter_s / 2)
        self._socket: Final = socket
        self._settings: Final = settings
        self._prober: Final = prober
        self._probe: Final = Probe(
            method=settings.method,
            path=settings.path,
            host=settings.host,
            expect=settings.expect,
            on_fail=OnFail.ALERT,
            discovered=True,
            pace=pace,
        )
        self._opinion = _Opinion(pools=(), servers=())
        self._results: dict[_Target, tuple[Code, str]] = {}  # oldest first

    async def __call__(self) -> Observation:
        """Look once, within ``pace.timeout_s``."""
        begun_s = time.monotonic()
        pools: tuple[PoolView, ...] | None = None
        silence = await self._ask()
        if silence:  # our look alone, a second opinion, accuses nobody
            verdict, code = Verdict.UNKNOWN, Code.UNK
            detail = f"HAProxy's opinion is unknown: {silence}"
        else:
            await self._probe_all()
            pools = self._pools()
            verdict, code, detail = _judge(pools)
        return Observation(
            check=self.name,
            scope=self.scope,
            verdict=verdict,
            code=code,
            detail=detail,
            duration_ms=(time.monotonic() - begun_s) * 1000,
            view=pools,
        )

    async def _ask(self) -> str:
        """Renew HAProxy's opinion; return why it has none now, or ""."""
        timeout_s = self._settings.pace.timeout_s
        answer = await runtimeapi.ask(self._socket(), _QUESTION, timeout_s=timeout_s)
        if answer.code is not Code.L7OK:
            return answer.text
        try:
            self._opinion = _read(answer.text)
        except ValueError as error:
            return str(error)
        return ""

    async def _probe_all(self) -> None:
        """Probe each target once; those whose last result is oldest come first."""
        listed = self._opinion.servers if self._settings.probe else ()
        targets = dict.fromkeys(server.target for server in listed if server.target)
        self._results = {
            target: kept for target, kept in self._results.items() if target in targets
        }
        turn = [*(target for target in targets if target not in self._results), *self._results]
        if not turn:
            return
        clock = asyncio.get_running_loop().time
        window_s = self._settings.pace.inter_s / 2
        gap_s = min(_START_GAP_S, window_s / len(turn))
        begun_s = clock()
        starts = iter(enumerate(turn))

        async def work() -> None:
            for index, target in starts:
                await asyncio.sleep(begun_s + index * gap_s - clock())
                if index and clock() > begun_s + window_s:
                    return  # the first always begins: however slow, the turn goes on
                address = target.address
                probe = replace(self._probe, name=address, address=address, type=target.type)
                result = await self._prober(probe)
                self._results.pop(target, None)
                self._results[target] = result

        places = min(self._settings.concurrency, len(turn))
        await asyncio.gather(*(work() for _ in range(places)))

    def _pools(self) -> tuple[PoolView, ...]:
        servers: dict[str, list[_Server]] = {name: [] for name in self._opinion.pools}
        for server in self._opinion.servers:
            servers.setdefault(server.pool, []).append(server)
        return tuple(self._pool(name, members) for name, members in servers.items())

    def _pool(self, name: str, servers: list[_Server]) -> PoolView:
        views = tuple(self._view(server) for server in servers)
        pairs = zip(servers, views, strict=True)
        serving = [_serves(view) for server, view in pairs if server.meant]
        return PoolView(name=name, up=sum(serving), total=len(serving), servers=views)

    def _view(self, server: _Server) -> ServerView:
        known = self._results.get(server.target) if server.target else None
        code, detail = known or (None, "")
        return ServerView(
            name=server.name, status=server.status, up=server.up, probe=code, probe_detail=detail
        )


def _serves(view: ServerView) -> bool:
    """Count a server as up by HAProxy's opinion, else by our probe, else by its bare status."""
    if view.up is not None:
        return view.up
    if view.probe not in {None, Code.UNK, Code.SOCKERR}:
        return view.probe in _PASSED
    return not view.status.startswith("DOWN")


def _judge(pools: Iterable[PoolView]) -> tuple[Verdict, Code, str]:
    with_servers = [pool for pool in pools if pool.total]
    disagreeing = [
        f"{pool.name}/{server.name}"
        for pool in with_servers
        for server in pool.servers
        if server.disagrees
    ]
    aside = f"; HAProxy and probe disagree on {_named(disagreeing)}" if disagreeing else ""
    dead = [pool.name for pool in with_servers if not pool.up]
    if dead:
        return Verdict.FAIL, Code.L7STS, f"no server up in {_named(dead)}{aside}"
    up = sum(pool.up for pool in with_servers)
    total = sum(pool.total for pool in with_servers)
    return Verdict.PASS, Code.L7OK, f"{up} of {total} servers up{aside}"


def _named(names: list[str]) -> str:
    """List a few names and count the rest."""
    rest = len(names) - _NAMED_MAX
    return ", ".join(names[:_NAMED_MAX]) + (f" and {rest} more" if rest > 0 else "")


def _read(text: str) -> _Opinion:
    """Read HAProxy's answer; raises ValueError when it is none."""
    blocks = runtimeapi.replies(text)
    rows = runtimeapi.stat(blocks[0], _STAT)
    state = runtimeapi.servers_state(blocks[1], _STATE) if len(blocks) > 1 else []
    places = {(row.get("be_name"), row.get("srv_name")): row for row in state}
    pools = {row["pxname"]: row.get("mode") for row in rows if row.get("type") == _BACKEND_ROW}
    servers = []
    for row in rows:
        if row.get("type") != _SERVER_ROW:
            continue
        pool, name, status = row["pxname"], row.get("svname", ""), row.get("status", "")
        meant = status == _UNRESOLVED or not status.startswith(_NOT_MEANT)
        place = places.get((pool, name), {})
        target = _target(place, http=pools.get(pool) == "http") if meant else None
        servers.append(
            _Server(pool=pool, name=name, status=status, up=_up(row), meant=meant, target=target)
        )
    return _Opinion(pools=tuple(pools), servers=tuple(servers))


def _up(row: runtimeapi.Row) -> bool | None:
    """Return HAProxy's opinion of one server; None while it has none."""
    status = row.get("status", "")
    if status == _UNRESOLVED:
        return False
    unchecked = status == "no check" or status.startswith(_NOT_MEANT)
    first = _NO_RESULT_YET.fullmatch(row.get("check_status", "")) or _NEGATIVE.match(status)
    return None if unchecked or first else status.startswith("UP")


def _target(place: runtimeapi.Row, *, http: bool) -> _Target | None:
    """Say how to look at a server; None for unresolved ones and Unix sockets (``-``).

    A server without a port of its own takes its clients'; its check's port will do for a look.
    """
    host = place.get("srv_addr", "-")
    port = number(place, "srv_port") or number(place, "srv_check_port")
    if host in {"-", "", "0.0.0.0", "::"} or not port:  # noqa: S104  (compared, not bound)
        return None
    kind = ProbeType.TCP
    if http:
        kind = ProbeType.HTTPS if number(place, "srv_use_ssl") else ProbeType.HTTP
    return _Target(address=f"[{host}]:{port}" if ":" in host else f"{host}:{port}", type=kind)
