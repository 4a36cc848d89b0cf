"""Ten thousand connections through the VIP, and a failover under them.

    python bench/concurrency.py [--visitors 10000] [--pair classic] [--json FILE]

The concurrency run of the setup that chk_haproxy.sh comes from, on the shipped pair in namespaces
of this machine, as in ``sentinel drill``: visitors keep that many connections through the VIP, each
with a request under way, while another client opens a new one every 10 ms. HAProxy's own figures
are read when all are there; then keepalived is stopped on the master, all are cut off and come to
the backup; when the master has forgotten them keepalived is started again. A HAProxy and a client
need an open file or two for each connection: where this machine allows fewer, as many as it allows
are tried, and the report says so. Exit 1 when not all were there in the end, or when sentinel took
the crowd for a fault. It needs root and takes three minutes.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from pair import PATH, UNSHARE
from report import Report, Target, arguments, conclude, need_root

from sentinel import runtimeapi
from sentinel.drill import outside
from sentinel.drill.faults import NOTHING_DONE
from sentinel.drill.node import end
from sentinel.drill.plan import Plan, make_plan
from sentinel.drill.records import outage_ms
from sentinel.drill.rehearsal import seal
from sentinel.drill.world import World

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator

    from sentinel.drill.node import Node

VISITORS: Final = Path(__file__).parent / "visitors.py"
STATS: Final = "/run/haproxy/admin.sock"
FRONTEND: Final = "http-in"
ANSWER_S: Final = 5.0
POLL_S: Final = 0.1
#: The servers' timeout in the shipped haproxy.cfg is 50 s: then the master forgets who has gone.
GATHERED_WITHIN_S: Final = 60.0
FORGOTTEN_WITHIN_S: Final = 90.0
LASTING_S: Final = 5.0
#: Of HAProxy's connections, for the other client and for probes; of its files, for all else.
SPARE: Final = 60
SPARE_FILES: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """What was so when all visitors were there: counted by them, and by HAProxy itself."""

    present: int
    curr_conns: int
    maxconn: int
    frontend: int
    idle_pct: int
    gathered_s: float
    outage_ms: float
    failed: int
    requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """How many visitors there were, each peak, and the names of all that sentinel said."""

    visitors: int
    peaks: dict[str, Peak]
    said: list[str]

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Read what ``json.dumps(asdict(...))`` wrote."""
        fields = json.loads(text)
        peaks = {name: Peak(**peak) for name, peak in fields.pop("peaks").items()}
        return cls(peaks=peaks, **fields)


@dataclass(slots=True, kw_only=True)
class Counted:
    """What the visitors last said of themselves."""

    present: int = 0
    cut_off: int = 0

    def hear(self, line: str) -> None:
        """Take ``PRESENT CUT_OFF``."""
        self.present, self.cut_off = map(int, line.split())


class Run:
    """One run in a world."""

    def __init__(self, world: World, visitors: int) -> None:
        self._world: Final = world
        self._visitors: Final = visitors
        self._counted: Final = Counted()

    async def play(self) -> dict[str, Peak]:
        """Gather on the master, move to the backup and back; return what each place saw."""
        world = self._world
        await world.wait_steady()
        async with self._gathering():
            peaks = {"through the master": await self._gather(world.master)}
            begun_s = time.monotonic()
            await world.master.service("keepalived", "stop")
            peaks["keepalived stopped: the backup"] = await self._gather(world.backup, begun_s)
            await self._forgotten(world.master)
            begun_s = time.monotonic()
            await world.master.service("keepalived", "start")
            peaks["started again: the master"] = await self._gather(world.master, begun_s)
        return peaks

    @asynccontextmanager
    async def _gathering(self) -> AsyncIterator[None]:
        place = self._world.plan.target.place
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(VISITORS), place.host, str(place.port), str(self._visitors)),
            stdin=DEVNULL,
            stdout=PIPE,
        )
        listening = asyncio.ensure_future(self._listen(process))
        try:
            yield
        finally:
            await end(process)
            await listening

    async def _listen(self, process: Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            self._counted.hear(line.decode())

    async def _gather(self, node: Node, begun_s: float | None = None) -> Peak:
        """Wait until all visitors are at *node*, let them stay a while, and read the figures."""
        since_s = time.monotonic() if begun_s is None else begun_s
        info = await self._info(node)
        while not self._are_at(node, info) and time.monotonic() < since_s + GATHERED_WITHIN_S:
            await asyncio.sleep(POLL_S)
            info = await self._info(node)
        gathered_s = time.monotonic() - since_s
        await asyncio.sleep(LASTING_S)
        info, until_s = await self._info(node), time.monotonic()
        answers = self._world.seen.answers
        during = [answer for answer in answers if since_s <= answer.at_s < until_s]
        return Peak(
            present=self._counted.present,
            curr_conns=runtimeapi.number(info, "CurrConns"),
            maxconn=runtimeapi.number(info, "Maxconn"),
            frontend=await self._frontend(node),
            idle_pct=runtimeapi.number(info, "Idle_pct"),
            gathered_s=gathered_s,
            outage_ms=outage_ms(answers, since_s, until_s),
            failed=sum(not answer.good for answer in during),
            requests=len(during),
        )

    def _are_at(self, node: Node, info: dict[str, str]) -> bool:
        return (
            self._world.seen.holders() == {node.name}
            and self._counted.present >= self._visitors
            and runtimeapi.number(info, "CurrConns") >= self._visitors
        )

    async def _forgotten(self, node: Node) -> None:
        """Wait until a node's HAProxy has let those go who are elsewhere now."""
        deadline_s = time.monotonic() + FORGOTTEN_WITHIN_S
        while time.monotonic() < deadline_s:
            if runtimeapi.number(await self._info(node), "CurrConns") < SPARE:
                return
            await asyncio.sleep(1.0)

    async def _info(self, node: Node) -> dict[str, str]:
        return dict(runtimeapi.info(await self._ask(node, "show info")))

    async def _frontend(self, node: Node) -> int:
        """Return the most sessions that the frontend has had at once."""
        rows = runtimeapi.stat(
            await self._ask(node, f"show stat {FRONTEND} 1 -1"), ("pxname", "smax")
        )
        return max((runtimeapi.number(row, "smax") for row in rows), default=0)

    async def _ask(self, node: Node, command: str) -> str:
        answer = await runtimeapi.ask(str(node.path(STATS)), command, timeout_s=ANSWER_S)
        return answer.text


def limit() -> int:
    """Return how many files one process may have open here."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def plan_of(pair: str, wanted: int) -> Plan:
    """Plan the shipped pair with as high a maxconn as is asked for and the machine allows."""
    plan = make_plan(outside.choose_files(None, None, None, pair))
    able = (limit() - SPARE_FILES) // 2
    return replace(plan, maxconn=min(wanted + SPARE, able))


async def inside(pair: str, wanted: int) -> None:
    """Play in the namespaces of this process, and say what was found."""
    plan = plan_of(pair, wanted)
    seal()
    visitors = min(wanted, plan.maxconn - SPARE)
    async with asyncio.TaskGroup() as group, World(plan, group) as world:
        peaks = await Run(world, visitors).play()
        said = [event.name for node in world.nodes for event in world.seen.told(node)]
    print(json.dumps(asdict(Found(visitors=visitors, peaks=peaks, said=said))))


def conclusion(found: Found, options: argparse.Namespace) -> Report:
    """Judge whether all were there, and whether sentinel let HAProxy be."""
    visitors, peaks = found.visitors, found.peaks
    short = f" (of {options.visitors} asked for)" if visitors < options.visitors else ""
    why = f"a process may open {limit()} files here, and HAProxy needs two for each visitor"
    return Report(
        name="concurrency",
        title=f"{visitors} connections at once through the VIP of the {options.pair} pair{short}",
        header=(
            *("", "visitors there", "HAProxy's CurrConns", "its Maxconn", "most in the frontend"),
            *("its Idle_pct", "all there after, s", "outage, ms", "failed requests"),
        ),
        rows=tuple(
            (
                name,
                *map(str, (peak.present, peak.curr_conns, peak.maxconn, peak.frontend)),
                *(str(peak.idle_pct), f"{peak.gathered_s:.1f}", f"{peak.outage_ms:.0f}"),
                f"{peak.failed} of {peak.requests}",
            )
            for name, peak in peaks.items()
        ),
        targets=(
            Target(
                what="visitors missing, at the worst",
                figure=max(visitors - min(p.present, p.curr_conns) for p in peaks.values()),
                limit=0,
                unit="visitors",
            ),
            Target(
                what="restarts, kills and stops by sentinel on both nodes",
                figure=sum(name in NOTHING_DONE for name in found.said),
                limit=0,
                unit="of them",
            ),
        ),
        notes=(
            f"most in the frontend: of HAProxy's statistics for {FRONTEND}, since its start",
            "outage, failed requests: of a client that opens a connection every 10 ms, for 250 ms",
            f"each line until all visitors had been there for {LASTING_S:.0f} s",
            *((why,) if short else ()),
        ),
    )


def main() -> int:
    """Play in namespaces of its own, print, judge."""
    parser = arguments(__doc__)
    parser.add_argument("--visitors", type=int, default=10_000)
    parser.add_argument("--pair", choices=("fast", "classic"), default="classic")
    parser.add_argument("--inside", action="store_true", help="(how it calls itself)")
    options = parser.parse_args()
    if options.inside:
        asyncio.run(inside(options.pair, options.visitors))
        return 0
    need_root()
    done = subprocess.run(
        [
            *("setpriv", "--pdeathsig", "KILL", *UNSHARE, sys.executable, __file__, "--inside"),
            *("--visitors", str(options.visitors), "--pair", options.pair),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{PATH}"},
        check=True,
    )
    return conclude(conclusion(Found.from_json(done.stdout), options), options.json)


if __name__ == "__main__":
    sys.exit(main())
