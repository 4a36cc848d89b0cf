"""What HAProxy is configured to do, as far as sentinel needs it: its stats socket and its binds.

Read from the files that the running process names, once for every incarnation, and looked through
again when the addresses of this node or the worker's listeners have changed: a bind on a VIP that
the peer holds must not be probed there. Sockets that the service manager holds outlive the worker,
and so does what is known of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypeVar

from sentinel import haproxycfg
from sentinel.aside import Aside
from sentinel.config import Config, Probe
from sentinel.core import State
from sentinel.model import ListenersView
from sentinel.processes import procfs
from sentinel.processes.invocation import Invocation

#: What carries a probe out.
Made = TypeVar("Made")

#: A disk that needs longer hangs: what it says then is not waited for.
READ_TIMEOUT_S: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grounds:
    """What the last result rests on: while it stays the same, so does the result."""

    invocation: Invocation | None
    incarnation: int
    listening: frozenset[str] | None
    local: frozenset[str] | None
    inherited: Mapping[int, tuple[str, int]]


class Survey(Generic[Made]):
    """Finds the probes to make."""

    def __init__(
        self,
        config: Config,
        invocation: Callable[[], Awaitable[Invocation]],
        local: Callable[[], Awaitable[frozenset[str] | None]],
        aside: Aside,
        make: Callable[[Probe], Made],
    ) -> None:
        """Survey what *invocation* runs, among the addresses *local*; it is read *aside*.

        *invocation* may raise OSError; *make* ValueError, for a probe that cannot be carried out.
        """
        self._make = make
        self._made: dict[Probe, Made] = {}
        self._notes: tuple[str, ...] = ()
        self._hindrance: str | None = None
        self._config = config
        self._invocation = invocation
        self._local = local
        self._aside = aside
        self._cfg = haproxycfg.HaproxyCfg()
        self._read_for: Invocation | None = None
        self._incarnation = -1
        self._inherited: Mapping[int, tuple[str, int]] = {}
        self._grounds: _Grounds | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What is not probed, and why."""
        return (*(() if self._hindrance is None else (self._hindrance,)), *self._notes)

    def stats_socket(self) -> str:
        """Return where the runtime API is to be asked, empty while that is not known."""
        return self._config.haproxy.stats_socket or self._cfg.stats_socket

    async def find(self, state: State) -> tuple[Made, ...] | None:
        """Return what was made of the probes to carry out now, of the same probe the same.

        None when nothing new is known since the last time.
        """
        await self._read(state.incarnation)
        if self._hindrance is not None:
            return None
        if self._config.probe or not self._config.discover:
            return ()
        view = _listeners(state)
        if view is not None:
            self._inherited = _inherited(self._cfg, view)
        grounds = _Grounds(
            invocation=self._read_for,
            incarnation=state.incarnation,
            listening=None if view is None else _places(view),
            local=await self._local(),
            inherited=self._inherited,
        )
        if grounds == self._grounds:
            return None
        self._grounds = grounds
        found = haproxycfg.discover(self._cfg, grounds.listening, grounds.local, grounds.inherited)
        self._notes = (*found.notes, *self._make_all(found.probes))
        return tuple(self._made.values())

    def _make_all(self, probes: tuple[Probe, ...]) -> Iterator[str]:
        """Make *probes* and no other; yield which cannot be, and why.

        HAProxy binds what the C library takes for an address (``127.1``), and compares a
        monitor-uri with whatever bytes it is sent; neither need be what a client can write.
        """
        known, self._made = self._made, {}
        for probe in probes:
            try:
                self._made[probe] = known[probe] if probe in known else self._make(probe)
            except ValueError as error:
                yield f"{probe.name}: not probed: {error}"

    async def _read(self, incarnation: int) -> None:
        """Read haproxy.cfg, once for each incarnation; one that cannot be is tried again."""
        self._hindrance = None
        try:
            invocation = await self._invocation()
            if (invocation, incarnation) == (self._read_for, self._incarnation):
                return
            self._cfg = await self._aside.run(partial(_read, invocation), READ_TIMEOUT_S)
        except TimeoutError as error:
            self._hindrance = str(error)
        except OSError as error:
            self._hindrance = f"cannot read HAProxy's configuration: {error}"
        else:
            self._read_for, self._incarnation = invocation, incarnation


def _read(invocation: Invocation) -> haproxycfg.HaproxyCfg:
    return haproxycfg.read(invocation.files, dict(invocation.env))


def _listeners(state: State) -> ListenersView | None:
    """Return what the worker listens on, None while that is not known of this incarnation."""
    check = state.checks.get("listeners")
    if check is None or check.answered_incarnation != state.incarnation:
        return None
    view = check.last.view
    return view if isinstance(view, ListenersView) else None


def _places(view: ListenersView) -> frozenset[str]:
    return frozenset(
        f"[{at.address}]:{at.port}" if ":" in at.address else f"{at.address}:{at.port}"
        for at in view.listeners
        if at.port
    )


def _inherited(cfg: haproxycfg.HaproxyCfg, view: ListenersView) -> dict[int, tuple[str, int]]:
    """Return where the descriptors listen that binds name: they are the worker's as well."""
    places = {f"socket:[{at.inode}]": (at.address, at.port) for at in view.listeners}
    workers = {at.holder.pid for at in view.listeners if at.holder is not None}
    binds = (bind for frontend in cfg.frontends for bind in frontend.binds)
    return {
        bind.descriptor: places[link]
        for bind in binds
        for worker in workers
        if bind.descriptor is not None
        and (link := procfs.link(worker, f"fd/{bind.descriptor}")) in places
    }
