"""What the supervisor drives: the Protocols it needs of the outside world, in one bundle.

The consumer declares; the drivers know nothing of it; ``wiring`` brings both together.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Protocol

from sentinel.actions import Outcome
from sentinel.checks import Check
from sentinel.core import CheckPolicy, Memory, State
from sentinel.model import Proc, ServiceState
from sentinel.vrrp import Vip


class Service(Protocol):
    """A service manager's handle on one service; every call ends by a deadline of its own."""

    async def look(self) -> ServiceState:
        """Return the manager's opinion of the service."""

    async def start(self) -> Outcome:
        """Start it."""

    async def stop(self) -> Outcome:
        """Stop it."""

    async def restart(self) -> Outcome:
        """Bring it up anew, whatever state it is in."""


class KeepalivedFiles(Protocol):
    """What keepalived reads: the lease and the track file, and the sign that it called."""

    def write(self, *, serving: bool, lowered: int = 0, now_s: float) -> None:
        """Renew the lease and set the track files; failures are counted, not raised."""

    def called_age_s(self, now_s: float) -> float | None:
        """Return how long ago keepalived called the hook; None if it never has."""


class EventLog(Protocol):
    """Where events go; never blocks."""

    def emit(self, name: str, level: str, fields: Mapping[str, str | int | float]) -> None:
        """Log one event."""

    def retry(self) -> None:
        """Send what had to wait, if it can be sent now."""


class Notifier(Protocol):
    """The service manager that started sentinel."""

    def watchdog(self) -> None:
        """Say that a step was completed."""


class Store(Protocol):
    """What outlives sentinel."""

    def save(self, value: Memory) -> None:
        """Keep it for a successor; failures are kept as well, not raised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything the supervisor drives, made by the composition root."""

    haproxy: Service
    keepalived: Service
    kill: Callable[[tuple[Proc, ...]], Outcome]
    remove_vip: Callable[[Vip], Awaitable[Outcome]]
    files: KeepalivedFiles
    renew_every_s: float
    log: EventLog
    notifier: Notifier
    memory: Store
    clock: Callable[[], float]
    checks: tuple[Check, ...]
    discover: Callable[[State], Awaitable[tuple[Check, ...] | None]]
    check_policy: Callable[[Check], CheckPolicy]
    beside: tuple[Callable[[], Coroutine[None, None, None]], ...] = ()  # run until the end
    dry_run: bool = False
