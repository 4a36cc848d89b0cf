"""One trial: one fault befalls one contestant's pair. The first process of a world of its own.

    python bench/trial.py CONTESTANT PAIR FAULT SETTLE_S [--tell]

``pair.py`` starts it in new namespaces and hears one JSON object a line. ``{"stage": NAME}``:
``built``, then ``steady``, which waits for a line on stdin before the fault happens, then
``settled``: what comes after may be disturbed. At last ``{"trial": {...}}`` or ``{"failed": WHY}``.

The world is that of ``sentinel drill``, with web servers that are machines of their own, so that a
node's death takes none with it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from contestants import MONITRC, PROJECT, Contestant, contestants, monit

from sentinel.config import OnCrash
from sentinel.drill.node import Node, WorldError, send
from sentinel.drill.plan import BACKUP, COMMANDS, MASTER, Files, Plan, make_plan
from sentinel.drill.records import failed_apart, longest_shared_s, outage_ms
from sentinel.drill.rehearsal import seal
from sentinel.drill.world import World

RESTARTER: Final = Path(__file__).parent / "restarter.py"
#: A contestant has so long to see to it that clients are served by one node again ...
WATCH_S: Final = 15.0
#: ... and so long for everything to be as before, once what caused it is mended.
HOME_S: Final = 25.0
LASTING_S: Final = 0.8
#: A fault that moves the VIP has done so by now, if ever.
MOVED_S: Final = 5.0
#: How long a broken configuration lies there before HAProxy is killed.
BROKEN_S: Final = 2.0
#: Machines of their own, where the shipped haproxy.cfg has its servers on the two nodes.
_SERVERS: Final = {"192.168.1.189:81": "192.168.1.11:81", "192.168.1.222:81": "192.168.1.12:81"}
#: Of those who measure: above everybody but keepalived on the fast pair, whose is -20.
NICENESS: Final = -15
_WEB: Final = ["sentinel.drill.standins", "web"]
#: The umask is keepalived's; what a service is started with is its manager's.
_INIT_SCRIPT: Final = '#!/bin/sh\numask 022\nexec {folder}/{name}-"$1"\n'

Deed = Callable[[World], Awaitable[None]]


class Arena(World):
    """A world in which a contestant watches both nodes."""

    def __init__(self, plan: Plan, group: asyncio.TaskGroup, contestant: Contestant) -> None:
        super().__init__(plan, group)
        self._contestant: Final = contestant

    async def start_sentinel(self, node: Node, *wrapper: str) -> None:
        """Start what the contestant has in sentinel's place, before keepalived starts."""
        for name in ("haproxy", "keepalived"):
            script = _INIT_SCRIPT.format(folder=COMMANDS, name=name)
            node.write(f"/etc/init.d/{name}", script, 0o755)
        for path, text, mode in self._contestant.files:
            node.path(path).parent.mkdir(parents=True, exist_ok=True)
            node.write(path, text, mode)
        if self._contestant.is_sentinel:
            await super().start_sentinel(node, *wrapper)
        if self._contestant.has_monit:
            await node.spawn(str(monit()), "-I", "-c", MONITRC)
        await node.spawn(sys.executable, "-I", "-S", str(RESTARTER), COMMANDS)

    async def wait_steady(self) -> None:
        """Wait until the master serves the VIP alone; sentinel must know its HAProxy as well."""
        if self._contestant.is_sentinel:
            await super().wait_steady()
        else:
            await self.wait_until(lambda: self.served_by({MASTER}), "the master serves the VIP")

    def served_by(self, nodes: set[str]) -> bool:
        """Clients are served, and these nodes hold the VIP."""
        return self.seen.holders() == nodes and self.seen.serving()

    def is_home(self) -> bool:
        """All is as before: the master serves the VIP with HAProxy and keepalived running."""
        return (
            self.served_by({MASTER})
            and any(proc.state not in "Tt" for proc in self.master.workers())
            and any(proc.state not in "Tt" for proc in self.master.named("keepalived"))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What befalls the master; *heal* undoes what no contestant can.

    *moves*: the VIP has to move, and nothing is settled before it did.
    """

    name: str
    title: str
    inject: Deed
    heal: Deed | None = None
    moves: bool = False


async def _kill_haproxy(world: World) -> None:
    world.signal(world.master, "haproxy", signal.SIGKILL)


async def _hang_haproxy(world: World) -> None:
    world.signal(world.master, "haproxy", signal.SIGSTOP)


async def _mend_configuration(world: World) -> None:
    world.master.write(world.plan.config.haproxy.config[0], world.plan.haproxy_cfg)


async def _kill_keepalived(world: World) -> None:
    """At once: stopped first, the child cannot tidy up when its parent dies."""
    procs = world.master.named("keepalived")
    send(signal.SIGSTOP, *procs)
    send(signal.SIGKILL, *procs)


def _keepalived(verb: str) -> Deed:
    async def deed(world: World) -> None:
        await world.master.service("keepalived", verb)

    return deed


def _cable(state: str) -> Deed:
    async def deed(world: World) -> None:
        await world.set_cables(world.master, state)

    return deed


def _order(verb: str) -> Deed:
    async def deed(world: World) -> None:
        await world.order(world.master, verb)

    return deed


async def _cut_power(world: World) -> None:
    await world.cut_power(world.master)


async def _restore_power(world: World) -> None:
    await world.switch_on(world.master)


FAULTS: Final = (
    Fault(name="crash", title="kill -9 of all haproxy", inject=_kill_haproxy),
    Fault(
        name="broken",
        title="configuration broken, then kill -9",
        inject=_kill_haproxy,
        heal=_mend_configuration,
    ),
    Fault(name="hang", title="SIGSTOP of all haproxy", inject=_hang_haproxy),
    Fault(
        name="stop",
        title="systemctl stop keepalived",
        inject=_keepalived("stop"),
        heal=_keepalived("start"),
        moves=True,
    ),
    Fault(
        name="stepdown",
        title="sentinel stepdown",
        inject=_order("stepdown"),
        heal=_order("resume"),
        moves=True,
    ),
    Fault(
        name="killed", title="kill -9 of keepalived's group", inject=_kill_keepalived, moves=True
    ),
    Fault(
        name="power", title="power cut", inject=_cut_power, heal=_restore_power, moves=True
    ),
    Fault(
        name="cable",
        title="cable pulled",
        inject=_cable("down"),
        heal=_cable("up"),
        moves=True,
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What was seen. *settled*: one node served clients again; *ended*: all was as before.

    *outage_ms* and *failed* are of the time until it settled, *back_ms* and *back_failed* of the
    time from then until it ended; *apart* and *back_apart* are those of them that were not under
    way when the VIP moved. *shared_ms* is how long two nodes held the VIP; *calm_ms* is the longest
    gap before the fault.
    """

    calm_ms: float
    outage_ms: float
    failed: int
    apart: int
    back_ms: float
    back_failed: int
    back_apart: int
    shared_ms: float
    settled: bool
    ended: bool


async def play(world: Arena, fault: Fault, settle_s: float) -> Trial:
    """Let the fault happen and watch."""
    await world.wait_steady()
    if fault.name == "broken":
        cfg = world.plan.haproxy_cfg
        world.master.write(world.plan.config.haproxy.config[0], f"nonsense\n{cfg}")
        await asyncio.sleep(BROKEN_S)
    await asyncio.sleep(settle_s)
    say("stage", "steady")
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    await asyncio.sleep(LASTING_S)
    begun_s = world.seen.mark(fault.title)
    injected = asyncio.ensure_future(fault.inject(world))

    def settled() -> bool:
        late = time.monotonic() > begun_s + MOVED_S
        moved = late or any(
            entry.held and entry.node == BACKUP and entry.at_s >= begun_s
            for entry in world.seen.holdings
        )
        return (
            (moved or not fault.moves) and len(world.seen.holders()) == 1 and world.seen.serving()
        )

    is_settled = await world.settles(settled, LASTING_S, WATCH_S)
    settled_s = time.monotonic()
    say("stage", "settled")
    await injected
    if is_settled and fault.heal is not None:
        world.seen.mark("healed")
        await fault.heal(world)
    ended = is_settled and await world.settles(world.is_home, LASTING_S, HOME_S)
    return _judge(world, begun_s, settled_s, settled=is_settled, ended=ended)


def _judge(
    world: Arena, begun_s: float, settled_s: float, *, settled: bool, ended: bool
) -> Trial:  # fmt: skip
    ended_s = time.monotonic()
    answers = world.seen.answers
    before = [answer for answer in answers if answer.at_s < begun_s]
    during = [answer for answer in answers if begun_s <= answer.at_s < settled_s]
    after = [answer for answer in answers if settled_s <= answer.at_s]
    shared_s = longest_shared_s(world.seen.holdings, begun_s, ended_s)
    return Trial(
        calm_ms=round(outage_ms(before, begun_s - LASTING_S, begun_s), 1),
        outage_ms=round(outage_ms(answers, begun_s, settled_s), 1),
        failed=sum(not answer.good for answer in during),
        apart=len(failed_apart(during, world.seen.holdings)),
        back_ms=round(outage_ms(answers, settled_s, ended_s), 1),
        back_failed=sum(not answer.good for answer in after),
        back_apart=len(failed_apart(after, world.seen.holdings)),
        shared_ms=round(max(shared_s, 0.0) * 1000, 1),
        settled=settled,
        ended=ended,
    )


def plan_of(contestant: Contestant, pair: str, folder: Path) -> Plan:
    """Write the contestant's files and plan its world."""
    cfg = (PROJECT / "contrib" / "haproxy" / "haproxy.cfg").read_text()
    for here, elsewhere in _SERVERS.items():
        cfg = cfg.replace(here, elsewhere)
    texts = {
        "haproxy.cfg": cfg,
        "sentinel.toml": f'[restart]\non_crash = "{contestant.on_crash or OnCrash.AUTO}"\n',
        **{f"{node}.conf": contestant.keepalived_conf(pair, node) for node in (MASTER, BACKUP)},
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    return make_plan(
        Files(
            haproxy=folder / "haproxy.cfg",
            master=folder / f"{MASTER}.conf",
            backup=folder / f"{BACKUP}.conf",
            sentinel=folder / "sentinel.toml",
            hook=PROJECT / "contrib" / "keepalived" / "chk_sentinel.sh",
        )
    )


def say(kind: str, what: object) -> None:
    """Tell ``pair.py``."""
    print(json.dumps({kind: what}), flush=True)


def put_first() -> None:
    """Let the client and the web servers run before all that is measured with them."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            argv = file.read_text().split("\0")
            if argv[2:3] == ["sentinel.drill.client"] or argv[2:4] == _WEB:
                os.setpriority(os.PRIO_PROCESS, int(file.parent.name), NICENESS)


def tell(world: World) -> None:
    """Tell a person on stderr what was seen, in seconds after the fault."""
    begun_s = world.seen.marks[0].at_s
    lines = [(e.at_s, f"{e.node} {e.name} {e.text}") for e in world.seen.events]
    lines += [(h.at_s, f"{h.node} {'has' if h.held else 'loses'} VIP") for h in world.seen.holdings]
    lines += [(mark.at_s, f"--- {mark.text}") for mark in world.seen.marks]
    for at_s, text in sorted(lines):
        print(f"{at_s - begun_s:9.3f} {text}", file=sys.stderr)


async def hold(contestant: Contestant, pair: str, fault: Fault, settle_s: float) -> None:
    """Build the world, play, say what was seen."""
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_of(contestant, pair, Path(folder))
    seal()
    async with asyncio.TaskGroup() as group, Arena(plan, group, contestant) as world:
        put_first()
        say("stage", "built")
        trial = await play(world, fault, settle_s)
        if "--tell" in sys.argv:
            tell(world)
        say("trial", asdict(trial))


def main() -> None:
    """Read the command line and run one trial."""
    contestant = next(each for each in contestants() if each.name == sys.argv[1])
    fault = next(each for each in FAULTS if each.name == sys.argv[3])
    try:
        asyncio.run(hold(contestant, sys.argv[2], fault, float(sys.argv[4])))
    except* WorldError as group:
        say("failed", "; ".join(map(str, group.exceptions)))


if __name__ == "__main__":
    main()
