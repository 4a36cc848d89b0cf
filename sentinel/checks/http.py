"""Frontend probes: HAProxy asked as a client asks it (tcp, tls, http, https).

The exchange itself is ``sentinel.exchange``; here a ``[[probe]]`` of the configuration becomes a
target and a request, and the result an observation. The certificate's expiry is reported with
every verdict and never makes a FAIL by itself: with ``verify`` an expired one fails the handshake
(L6RSP), without it the probe was told not to mind.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from sentinel.address import read_address
from sentinel.config import ProbeType
from sentinel.exchange import Request, Result, Target, Tls, authority, exchange
from sentinel.model import Code, Observation, ProbeView, Scope

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentinel.config import Pace, Probe

_PORTS: Final = {ProbeType.HTTP: 80, ProbeType.HTTPS: 443}
_DAY_S: Final = 86400.0


async def look(probe: Probe) -> tuple[Code, str]:
    """Carry *probe* out once, within its ``pace.timeout_s``; for direct probes of servers."""
    try:
        target, request = _plan(probe)
    except ValueError as error:
        return Code.UNK, str(error)
    result = await exchange(target, request, timeout_s=probe.pace.timeout_s)
    return result.code, _told(result)


class ProbeCheck:
    """One frontend probe. Raises ValueError when *probe* cannot be carried out as written."""

    def __init__(self, probe: Probe, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._name = probe.name or probe.address
        self._pace = probe.pace
        self._expires_within_s = probe.expires_within_s
        self._target, self._request = _plan(probe)
        self._wall_clock = wall_clock

    @property
    def name(self) -> str:
        """The configured name, else the address."""
        return self._name

    @property
    def scope(self) -> Scope:
        """A failure is about a frontend."""
        return Scope.FRONTEND

    @property
    def pace(self) -> Pace:
        """Intervals, deadline, rise and fall."""
        return self._pace

    async def __call__(self) -> Observation:
        """Probe once, within ``pace.timeout_s``."""
        result = await exchange(self._target, self._request, timeout_s=self._pace.timeout_s)
        view = self._view(result)
        return Observation(
            check=self._name,
            scope=Scope.FRONTEND,
            verdict=result.verdict,
            code=result.code,
            detail="; ".join(filter(None, (_told(result), _expiry(view)))),
            duration_ms=result.duration_ms,
            view=view,
        )

    def _view(self, result: Result) -> ProbeView:
        """Turn the certificate's date into what is left of it."""
        left_s = None
        if result.certificate_not_after_s is not None:
            left_s = result.certificate_not_after_s - self._wall_clock()
        return ProbeView(
            status=result.status,
            connect_ms=result.connect_ms,
            tls_ms=result.tls_ms,
            response_ms=result.response_ms,
            certificate_left_s=left_s,
            expiring=left_s is not None and left_s < self._expires_within_s,
        )


@lru_cache(maxsize=4096)
def _plan(probe: Probe) -> tuple[Target, Request | None]:
    """Turn the configuration's words into a target and, for http and https, a request."""
    address = read_address(probe.address)
    host = probe.host or authority(address, _PORTS.get(probe.type, 0))
    tls = None
    if probe.type in {ProbeType.TLS, ProbeType.HTTPS}:
        name = probe.sni or _without_port(host)
        tls = Tls(server_name=name, verify=probe.verify, ca_file=probe.ca_file)
    request = None
    if probe.type in {ProbeType.HTTP, ProbeType.HTTPS}:
        request = Request.build(
            method=probe.method,
            path=probe.path,
            host=host,
            headers=probe.headers,
            expect=probe.expect,
            body=probe.body,
        )
    return Target(address=address, tls=tls, proxy_protocol=probe.proxy_protocol), request


def _without_port(host: str) -> str:
    """Return the name in a Host header: of ``a.example:8443`` a.example, of ``[::1]:443`` ::1."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _told(result: Result) -> str:
    """Tell a result in one line: what came of it, and where the time went."""
    phases = (
        ("connect", result.connect_ms),
        ("tls", result.tls_ms),
        ("response", result.response_ms),
    )
    told = ", ".join(f"{name} {ms:.1f}" for name, ms in phases if ms is not None)
    return f"{result.detail} in {result.duration_ms:.1f} ms" + (f" ({told})" if told else "")


def _expiry(view: ProbeView) -> str:
    """Tell how long the certificate is still good, or for how long it no longer is."""
    if view.certificate_left_s is None:
        return ""
    if view.certificate_left_s < 0:
        return f"certificate expired {-view.certificate_left_s / _DAY_S:.1f} days ago"
    return f"certificate good for {view.certificate_left_s / _DAY_S:.1f} days"
