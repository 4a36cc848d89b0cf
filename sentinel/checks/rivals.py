"""Whether this node is MASTER alone: nobody else answers for its VIPs, nobody speaks for them.

At each run one VIP of every instance is asked for on the wire, the next one at the next run, and
beside them those that somebody was seen to have. Adverts of other machines are listened for all the
time, at no cost while there are none. Only where this node is MASTER: elsewhere both are normal.

When the rivals of an instance have gone and this node still holds its VIPs, they are announced.
keepalived does so itself when it has heard the other one's adverts, but not when it was deaf, which
is how there came to be two; and whoever is told twice knows no less.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from sentinel.aside import Aside
from sentinel.model import Code, Observation, Scope, Verdict
from sentinel.neighbours.adverts import Adverts
from sentinel.neighbours.probe import probe_all
from sentinel.neighbours.sightings import Sightings
from sentinel.vrrp import Rival, RivalsView

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator

    from sentinel.config import Pace
    from sentinel.neighbours.packets import Advert
    from sentinel.vrrp import InstanceView, Vip

_CODES: Final = {
    Verdict.PASS: Code.PROCOK,
    Verdict.FAIL: Code.PROCERR,
    Verdict.UNKNOWN: Code.UNK,
}
#: The priority of a MASTER that is giving up (RFC 9568, 5.2.4).
_GIVING_UP: Final = 0


@dataclass(slots=True, kw_only=True)
class _Held:
    """One instance while this node is MASTER of it; *contested* while it has rivals."""

    view: InstanceView
    seen: Sightings
    turn: int = 0
    contested: bool = False

    def due(self) -> Iterator[Vip]:
        """Yield the VIP whose turn it is, and those that somebody else was seen to have."""
        present = self.view.present
        taken = {rival.address for rival in self.seen.suspects}
        self.turn = (self.turn + 1) % len(present)
        yield present[self.turn]
        yield from (vip for vip in present if vip.address in taken)

    def speaks(self, advert: Advert) -> bool:
        """Tell whether a foreign *advert* of the same VRID is for an address of this instance.

        One that is not comes from another virtual router, which the VRID fails to tell apart.
        """
        own = {vip.address for vip in self.view.instance.vips}
        return advert.priority != _GIVING_UP and not own.isdisjoint(advert.addresses)


class RivalsCheck:
    """Looks for other holders of what this node holds."""

    name: Final = "rivals"
    scope: Final = Scope.VRRP

    def __init__(
        self,
        pace: Pace,
        held: Callable[[], tuple[InstanceView, ...]],
        announce: Callable[[Collection[Vip]], Awaitable[None]],
        on_change: Callable[[], None],
        on_advert: Callable[[str], None],
    ) -> None:
        """Begin with nothing held.

        *held* gives the instances that this node is MASTER of, with their VIPs present.
        *announce* tells the neighbours where VIPs are; it may raise OSError. *on_change* is called
        when somebody else is heard, and when it is time to look again whether he stays; *on_advert*
        with an instance's name for every advert of somebody else's.
        """
        self.pace = pace
        self._ask_held = held
        self._announce = announce
        self._on_change = on_change
        self._on_advert = on_advert
        self._held: dict[str, _Held] = {}
        self._asking = Aside("asking the wire")
        self._adverts = Adverts(self._hear)
        self._again: asyncio.TimerHandle | None = None

    async def __call__(self) -> Observation:
        """Look once, on the running loop."""
        begun_s = time.perf_counter()
        verdict, detail, view = await self._look()
        return Observation(
            check=self.name,
            scope=self.scope,
            verdict=verdict,
            code=_CODES[verdict],
            detail=detail,
            duration_ms=(time.perf_counter() - begun_s) * 1000,
            view=view,
        )

    def close(self) -> None:
        """Stop listening."""
        self._adverts.close()
        if self._again is not None:
            self._again.cancel()

    async def _look(self) -> tuple[Verdict, str, RivalsView]:
        self._follow()
        hindered = self._listen()
        if not self._held:
            return Verdict.PASS, "not MASTER", RivalsView(rivals={})
        hindered = await self._probe() or hindered
        self._follow()  # what was held may have been lost while answers were waited for
        if not self._held:
            return Verdict.PASS, "not MASTER", RivalsView(rivals={})
        said = await self._note_healed()
        self._look_again()
        view = RivalsView(
            rivals={name: held.seen.rivals for name, held in self._held.items() if held.contested}
        )
        if view.rivals:
            return Verdict.FAIL, ", ".join(_complaints(view)), view
        if hindered:
            return Verdict.UNKNOWN, hindered, view
        return Verdict.PASS, said or f"alone with {', '.join(self._held)}", view

    def _follow(self) -> None:
        """Keep what is known of the instances that are still held, and of no other."""
        self._held = {
            view.instance.name: self._keep(view) for view in self._ask_held() if view.present
        }

    def _keep(self, view: InstanceView) -> _Held:
        known = self._held.get(view.instance.name)
        if known is None or known.view.instance != view.instance:
            return _Held(view=view, seen=Sightings(view.instance.advert_int_s))
        known.view = view
        return known

    # --- adverts --------------------------------------------------------------------------------

    def _listen(self) -> str:
        """Listen where something is held; return what hinders it."""
        wanted = defaultdict(set)
        for held in self._held.values():
            instance = held.view.instance
            for vip in instance.vips:
                place = (instance.interface, ip_address(vip.address).version)
                wanted[place].add(instance.router_id)
        return self._adverts.follow({place: frozenset(ids) for place, ids in wanted.items()})

    def _hear(self, interface: str, advert: Advert, mac: str) -> None:
        rival = Rival(how="VRRP", address=advert.source, mac=mac, priority=advert.priority)
        for held in self._held.values():
            instance = held.view.instance
            same = (instance.interface, instance.router_id) == (interface, advert.router_id)
            if not same or not held.speaks(advert):
                continue
            if held.seen.note(rival, time.monotonic()):
                self._on_change()
            self._on_advert(instance.name)

    # --- probes ---------------------------------------------------------------------------------

    async def _probe(self) -> str:
        """Ask for the VIPs that are due and note who answers; return what hindered it."""
        due = {vip: held for held in self._held.values() for vip in held.due()}
        hindered = {}
        for vip, answer in (await probe_all(due, self._asking)).items():
            if isinstance(answer, OSError):
                reason = answer.strerror or answer
                hindered[vip.interface] = f"cannot probe on {vip.interface}: {reason}"
                continue
            for rival in answer:
                due[vip].seen.note(rival, time.monotonic())
        return ", ".join(hindered.values())

    def _look_again(self) -> None:
        """Have those that do not count yet looked at as soon as they could."""
        if self._again is not None:
            self._again.cancel()
            self._again = None
        waits_s = [
            held.seen.confirm_s
            for held in self._held.values()
            if len(held.seen.rivals) < len(held.seen.suspects)
        ]
        if waits_s:
            loop = asyncio.get_running_loop()
            self._again = loop.call_later(min(waits_s), self._on_change)

    # --- judging --------------------------------------------------------------------------------

    async def _note_healed(self) -> str:
        """Announce the VIPs of the instances whose rivals have gone; return what was done."""
        now_s, healed = time.monotonic(), []
        for held in self._held.values():
            held.seen.forget(now_s)
            was, held.contested = held.contested, bool(held.seen.rivals)
            if was and not held.contested:
                healed.append(held)
        vips = [vip for held in healed for vip in held.view.present]
        if not vips:
            return ""
        said = f"alone again with {', '.join(held.view.instance.name for held in healed)}"
        try:
            await self._announce(vips)
        except OSError as error:
            return f"{said}, but cannot announce: {error.strerror or error}"
        return f"{said}, announced {', '.join(vip.address for vip in vips)}"


def _complaints(view: RivalsView) -> Iterator[str]:
    """Say of each rival what it has, and how that is known."""
    for name, rivals in view.rivals.items():
        for rival in rivals:
            if rival.how == "VRRP":
                yield (
                    f"{name}: another MASTER speaks from {rival.address}, "
                    f"priority {rival.priority} ({rival.mac})"
                )
            else:
                yield f"{rival.address} is also held by {rival.mac} ({rival.how})"
