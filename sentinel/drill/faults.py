"""What a fault is, and how its end is judged.

A Fault is declared, not programmed: what happens, how it is healed, what must be so meanwhile and
in the end, and which of sentinel's events must and must not appear on the master.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from sentinel.drill.plan import BACKUP, MASTER
from sentinel.drill.records import failed_apart, longest_shared_s
from sentinel.drill.world import World

#: The mark of the healing.
HEALED: Final = "healed"

Deed = Callable[[World], Awaitable[None]]


class Vip(Enum):
    """Where the VIP must be; the value is said in the report."""

    HOME = "on the master alone"
    PEER = "on the backup alone"
    BOTH = "on both nodes"

    def holds(self, holders: frozenset[str], *, nopreempt: bool) -> bool:
        """Tell whether it is so; a VIP that may not preempt is at home wherever it is alone."""
        match self:
            case Vip.HOME:
                return len(holders) == 1 if nopreempt else holders == {MASTER}
            case Vip.PEER:
                return holders == {BACKUP}
            case Vip.BOTH:
                return holders == {MASTER, BACKUP}


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What must be so: where the VIP is, whether clients are served, whether HAProxy runs."""

    vip: Vip
    served: bool | None = True
    haproxy: bool | None = None
    within_s: float = 20.0

    def missing(self, world: World) -> Iterator[str]:
        """Yield what is not so now."""
        holders = world.seen.holders()
        if not self.vip.holds(holders, nopreempt=world.plan.nopreempt):
            names = " and ".join(sorted(holders)) or "no node"
            yield f"the VIP is on {names}, not {self.vip.value}"
        if self.served is not None and world.seen.serving() != self.served:
            yield "clients are not served" if self.served else "clients are served"
        running = any(proc.state not in "Tt" for proc in world.master.workers())
        if self.haproxy is not None and running != self.haproxy:
            yield f"HAProxy {'runs' if running else 'does not run'} on the master"

    def __str__(self) -> str:
        """Say it in the report's words."""
        words = [f"VIP {self.vip.value}"]
        if self.served is not None:
            words.append("clients served" if self.served else "clients not served")
        if self.haproxy is not None:
            words.append(f"HAProxy {'runs' if self.haproxy else 'down'} on the master")
        return ", ".join(words)


HOME: Final = Situation(vip=Vip.HOME, served=True, haproxy=True, within_s=45.0)
UNTOUCHED: Final = Situation(vip=Vip.HOME, haproxy=True)
MOVED: Final = Situation(vip=Vip.PEER)
TORN: Final = Situation(vip=Vip.BOTH)
#: Nothing was done by sentinel: no restart, no kill, no failover.
NOTHING_DONE: Final = (
    *("haproxy.hung", "haproxy.died", "haproxy.killed", "haproxy.restarted", "haproxy.failed"),
    *("keepalived.stopped", "keepalived.started"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault and what is expected of it.

    *meanwhile* must come true under the fault and last for *dwell_s*; then *heal* is done, and
    *end* must come true. *prepare* is done to the world before all that, which the client then
    sees well served. *told* and *untold* are events as ``Event.says`` knows them. *moves_vip*
    False: the VIP may not move at all. *survivor_keeps*: a backup that has taken it from a dead
    master may not lose it before that is healed. *shared_s*: for so long, beside the time between
    two adverts, both may hold it. *lossless*: no request may fail but those under way when the
    VIP moves.
    """

    name: str
    title: str
    inject: Deed
    prepare: Deed | None = None
    heal: Deed | None = None
    meanwhile: Situation | None = None
    dwell_s: float = 0.0
    end: Situation = HOME
    told: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()
    moves_vip: bool = True
    survivor_keeps: bool = False
    shared_s: float = 1.0
    lossless: bool = False

    @property
    def expected(self) -> str:
        """Say in one line what is expected."""
        parts = []
        if self.meanwhile is not None:
            parts.append(f"meanwhile: {self.meanwhile}")
        parts.append(f"in the end: {self.end}")
        if not self.moves_vip:
            parts.append("the VIP never moves")
        if self.survivor_keeps:
            parts.append("the backup keeps it until then")
        if self.lossless:
            parts.append("no request fails but those under way when the VIP moves")
        if self.told:
            parts.append(f"sentinel says {', '.join(self.told)}")
        if self.untold:
            parts.append(f"and never {', '.join(self.untold)}")
        return "; ".join(parts)

    def all_told(self, world: World, begun_s: float) -> bool:
        """Tell whether the master's sentinel has said all that it must."""
        return not any(self._unsaid(world, begun_s))

    def faulty_records(self, world: World, begun_s: float) -> Iterator[str]:
        """Yield what the records since *begun_s* say against it."""
        yield from (f"sentinel never said {words}" for words in self._unsaid(world, begun_s))
        for words in self.untold:
            if any(event.says(words) for event in world.seen.told(MASTER, begun_s)):
                yield f"sentinel said {words}"
        for node in world.nodes:
            if any(event.says("sentinel.crashed") for event in world.seen.told(node, begun_s)):
                yield f"sentinel crashed on the {node}"
        seen = [answer for answer in world.seen.answers if answer.at_s >= begun_s]
        for lost in failed_apart(seen, world.seen.holdings) if self.lossless else ():
            yield (
                f"a request failed at {lost.at_s - begun_s:+.3f} s, after {lost.took_ms:.0f} ms,"
                " that was not under way when the VIP moved"
            )
        yield from self._misplaced(world, begun_s)

    def _unsaid(self, world: World, begun_s: float) -> Iterator[str]:
        """Yield what the master's sentinel must still say."""
        for words in self.told:
            if not any(event.says(words) for event in world.seen.told(MASTER, begun_s)):
                yield words

    def _misplaced(self, world: World, begun_s: float) -> Iterator[str]:
        """Yield where the VIP was meanwhile, and should not have been."""
        shared_s = longest_shared_s(world.seen.holdings, begun_s, time.monotonic())
        if shared_s > self.shared_s + world.plan.advert_int_s:
            yield f"both nodes held the VIP for {shared_s:.2f} s"
        moved = any(holding.at_s >= begun_s for holding in world.seen.holdings)
        if moved and not self.moves_vip:
            yield "the VIP moved"
        healed_s = next((m.at_s for m in world.seen.marks if m.text == HEALED), begun_s)
        if self.survivor_keeps and world.seen.lost(BACKUP, begun_s, healed_s):
            yield "the backup gave the VIP away although it was alone"
