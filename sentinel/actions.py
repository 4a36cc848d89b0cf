"""What is to be done: everything the core can ask for, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field

from sentinel.model import Proc
from sentinel.vrrp import Vip


@dataclass(frozen=True, slots=True, kw_only=True)
class LookAtHaproxy:
    """Ask the service manager about HAProxy; answered by HaproxyServiceSeen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LookAtKeepalived:
    """Ask the service manager about keepalived; answered by KeepalivedServiceSeen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartHaproxy:
    """Bring HAProxy up again through its service manager; *attempt* counts from 1.

    *kill_first* are processes of a HAProxy that lives but does not serve: a service manager would
    wait for them through its whole stop timeout.
    """

    attempt: int
    reason: str
    kill_first: tuple[Proc, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KillHaproxy:
    """SIGKILL exactly these processes, by pidfd."""

    procs: tuple[Proc, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StopKeepalived:
    """The last rung: give the VIP away by stopping keepalived."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartKeepalived:
    """Undo our own stop of keepalived."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveVips:
    """Take exactly these addresses off this node: keepalived is dead and has left them."""

    vips: tuple[Vip, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recheck:
    """Run these checks now instead of at their next turn."""

    checks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Log one event: a dotted, past-tense name, its severity, reason and evidence."""

    name: str
    level: str  # info, warning, error, critical
    fields: tuple[tuple[str, str | int | float], ...] = field(default=())


Action = (
    LookAtHaproxy
    | LookAtKeepalived
    | RestartHaproxy
    | KillHaproxy
    | StopKeepalived
    | StartKeepalived
    | RemoveVips
    | Recheck
    | Report
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an effect on the outside world ended; *detail* says why it failed."""

    ok: bool
    detail: str = ""
