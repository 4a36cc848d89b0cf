"""The world of one fault: two nodes on a switch, web servers and a client, and what is seen there.

It is built in the network namespace of the calling process, which is the switch, the client and
the web servers in one; that process must be the first of a pid namespace, so that all ends with it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Iterator
from typing import Final, Self

from sentinel.drill import client, laying
from sentinel.drill.node import (
    DEADLINE_S,
    LackingError,
    Node,
    WorldError,
    end,
    run,
    send,
    wait_ready,
)
from sentinel.drill.plan import BACKUP, MASTER, SENTINEL_TOML, Plan
from sentinel.drill.witness import Witness

STEADY_WITHIN_S: Final = 30.0
#: Servers are up when HAProxy starts: so soon it has found out, or never will.
SERVED_WITHIN_S: Final = 8.0
_POLL_S: Final = 0.02
_STANDINS: Final = (sys.executable, "-m", "sentinel.drill.standins")
_SENTINEL: Final = (sys.executable, "-m", "sentinel")


class World:
    """Two nodes, their site, and the records of what happened; use it with ``async with``."""

    def __init__(self, plan: Plan, group: asyncio.TaskGroup) -> None:
        self.plan: Final = plan
        self._group: Final = group
        master, backup = (Node(machine, plan) for machine in plan.machines)
        self.master: Final = master
        self.backup: Final = backup
        self.nodes: Final = {MASTER: master, BACKUP: backup}
        self.seen: Final = Witness(plan.target.place.host)
        self.status = 0  # what HAProxy answers in place of its servers, if it does
        self._own: list[tuple[str, Process]] = []

    async def __aenter__(self) -> Self:
        """Build everything and start it; wait for nothing yet."""
        await self._build_switches()
        async with asyncio.TaskGroup() as group:
            for node in self.nodes.values():
                group.create_task(self.switch_on(node))
        await self._start_client()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cut the power of everything."""
        for node in self.nodes.values():
            await self.cut_power(node)
        for kind in {kind for kind, _ in self._own}:
            await self.end_own(kind)
        for number in range(self.plan.switches):
            await run("ip", "link", "del", f"switch{number}")

    # --- the site -------------------------------------------------------------------------------

    async def _build_switches(self) -> None:
        await run("sh", "-ec", "\n".join(laying.switches(self.plan)))
        await self.start_site()

    async def start_site(self) -> None:
        """Start the web servers that are machines of their own."""
        if self.plan.places:
            await self.start_own("web", *map(str, self.plan.places))

    async def start_own(self, kind: str, *arguments: str) -> Process:
        """Start a stand-in on the switch."""
        process = await asyncio.create_subprocess_exec(
            *_STANDINS, kind, *arguments, stdin=DEVNULL, stdout=PIPE
        )
        self._own.append((kind, process))
        await wait_ready(process, kind)
        return process

    async def end_own(self, kind: str) -> None:
        """End the stand-ins of this kind on the switch."""
        for process in [process for own, process in self._own if own == kind]:
            await end(process)
        self._own = [(own, process) for own, process in self._own if own != kind]

    def signal_own(self, kind: str, number: signal.Signals) -> None:
        """Send a signal to the stand-ins of this kind on the switch."""
        for own, process in self._own:
            if own == kind:
                os.kill(process.pid, number)

    async def start_in(self, node: Node, kind: str, *arguments: str) -> Process:
        """Start a stand-in in a node."""
        process = await node.spawn(*_STANDINS, kind, *arguments, stdout=PIPE)
        await wait_ready(process, kind)
        return process

    async def _start_client(self, *option: str) -> None:
        target = self.plan.target
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sentinel.drill.client", str(target.place)),
            *("tls" if target.tls else "plain", *option),
            stdin=DEVNULL,
            stdout=PIPE,
        )
        self._own.append(("client", process))
        self._follow(process.stdout, self.seen.hear_client)

    # --- the nodes ------------------------------------------------------------------------------

    async def switch_on(self, node: Node) -> None:
        """Boot a node: cables, web servers, log, HAProxy, sentinel, keepalived."""
        await node.power_on()
        await self._lay_cables(node)
        monitor = await node.spawn("ip", "-o", "-ts", "monitor", "address", stdout=PIPE)
        self._follow(monitor.stdout, lambda line: self.seen.hear_address(node.name, line))
        log = await self.start_in(node, "log")
        self._follow(log.stdout, lambda line: self.seen.hear_keepalived(node.name, line))
        await self.start_web(node)
        await self._start_haproxy(node)
        await self.start_sentinel(node)
        await node.service("keepalived", "start")

    async def _start_haproxy(self, node: Node) -> None:
        try:
            await node.service("haproxy", "start")
        except WorldError as error:
            alerts = [line for line in str(error).splitlines() if "[ALERT]" in line]
            cure = "put on this machine what it misses, or take it out of a copy of haproxy.cfg"
            said = "\n".join(alerts or [str(error)])
            raise WorldError(f"HAProxy does not start: {cure}\n{said}") from None

    async def start_web(self, node: Node) -> None:
        """Start the web servers that live on a node."""
        if node.machine.places:
            await self.start_in(node, "web", *map(str, node.machine.places))

    async def start_sentinel(self, node: Node, *wrapper: str) -> None:
        """Start sentinel as its unit does, and follow what it says; *wrapper* may start it."""
        argv = (*_SENTINEL, "run", "--config", SENTINEL_TOML)
        process = await node.spawn(*wrapper, *argv, stderr=PIPE)
        self._follow(process.stderr, lambda line: self.seen.hear_sentinel(node.name, line))

    async def order(self, node: Node, *words: str) -> None:
        """Give a node's sentinel an order, and wait until it is carried out."""
        self.seen.mark(f"{node.name}: sentinel {' '.join(words)}")
        await node.run(*_SENTINEL, *words, "--config", SENTINEL_TOML)

    async def cut_power(self, node: Node) -> None:
        """End a node in the middle of whatever it does, and with it its links."""
        if not node.is_on:
            return
        node.lose_power()
        for number in range(len(node.machine.cables)):
            port = laying.port(node.machine, number)  # which may be gone with the node already
            await run("sh", "-c", f"ip link del {port} || ! ip link show {port}")
        await node.power_off()
        self.seen.hear_loss(node.name)

    async def _lay_cables(self, node: Node) -> None:
        for number, cable in enumerate(node.machine.cables):
            port = laying.port(node.machine, number)
            peer = ("peer", "name", cable.interface, "netns", str(node.pid))
            await run("ip", "link", "add", port, "type", "veth", *peer)
            await run("ip", "link", "set", port, "master", f"switch{cable.switch}", "up")
        await node.run("sh", "-ec", "\n".join(laying.inside(node.machine)))

    async def set_cables(self, node: Node, *state: str) -> None:
        """Set all switch ports of a node ``up`` or ``down``, or give them another property."""
        for number in range(len(node.machine.cables)):
            await run("ip", "link", "set", laying.port(node.machine, number), *state)

    # --- what is seen ---------------------------------------------------------------------------

    def _follow(self, stream: asyncio.StreamReader | None, hear: Callable[[str], None]) -> None:
        assert stream is not None  # noqa: S101  (a pipe, as we asked)

        async def read() -> None:
            while line := await stream.readline():
                hear(line.decode("utf-8", "replace").strip())

        group = self._group
        group.create_task(read())

    # --- waiting --------------------------------------------------------------------------------

    async def wait_until(
        self, true: Callable[[], bool], what: str, within_s: float = DEADLINE_S
    ) -> None:
        """Wait for something of the world; raises WorldError when it does not come."""
        if not await self.settles(true, 0.0, within_s):
            raise WorldError(f"not within {within_s:g} s: {what}")

    async def settles(self, true: Callable[[], bool], lasting_s: float, within_s: float) -> bool:
        """Wait until something has been true for so long; tell whether it began in time."""
        deadline_s = time.monotonic() + within_s
        since_s = time.monotonic()
        while True:
            now_s = time.monotonic()
            if not true():
                since_s = now_s
                if now_s > deadline_s:
                    return False
            elif now_s - since_s >= lasting_s:
                return True
            await asyncio.sleep(_POLL_S)

    async def wait_event(self, node: Node, words: str, since_s: float) -> None:
        """Wait until a node's sentinel has said *words*: see ``Event.says``."""
        await self.wait_until(
            lambda: any(event.says(words) for event in self.seen.told(node.name, since_s)),
            f"{words} from {node.name}",
        )

    async def wait_held_by(self, node: Node) -> None:
        """Wait until a node holds the VIP alone."""
        await self.wait_until(lambda: self.seen.holders() == {node.name}, f"the VIP on {node.name}")

    def _is_placed(self) -> bool:
        return self.seen.holders() == {MASTER} and self._are_equal()

    def _are_equal(self) -> bool:
        """Tell whether both sentinels say that their node serves, and is worth the same."""
        words = [self.seen.verdicts().get(node, "") for node in self.nodes]
        return words[0].startswith("serving") and len(set(words)) == 1

    async def wait_steady(self) -> None:
        """Wait until the master serves the VIP alone and has no reason to give it away.

        Where HAProxy answers for its servers (503 for a host that nobody asked for, or because no
        stub can be the server) that counts as an answer from then on.
        """
        placed = await self.settles(self._is_placed, 0.0, STEADY_WITHIN_S)
        if placed and await self.settles(self.seen.serving, 0.0, SERVED_WITHIN_S):
            return
        self.status = await self._ask() if placed else 0
        if self.status >= client.FAILURE:
            self.seen.mark(f"HAProxy itself answers {self.status}, which is an answer here")
            await self.end_own("client")
            await self._start_client("any")
            if await self.settles(self.seen.serving, 0.0, SERVED_WITHIN_S):
                return
        why = "; ".join([*self._unsteady(), *await self._keepalived_says()])
        raise WorldError(f"not within {STEADY_WITHIN_S:g} s: {why}")

    async def _ask(self) -> int:
        place, tls = self.plan.target.place, self.plan.target.tls
        return await client.ask(place.host, place.port, client.trusting() if tls else None)

    def _unsteady(self) -> Iterator[str]:
        """Yield what is not as it must be before a fault."""
        target, holders = self.plan.target, self.seen.holders()
        if holders != {MASTER}:
            names = " and ".join(sorted(holders)) or "no node"
            order = "; are the two keepalived.conf given in the order MASTER BACKUP?"
            yield f"{target.place.host} is on {names}{order if BACKUP in holders else ''}"
        elif not self.seen.serving():
            kind = "HTTP over TLS" if target.tls else "HTTP"
            yield f"{target.place} on the master answers no {kind}"
        if not self._are_equal():
            verdicts = self.seen.verdicts()
            yield from (f"{node}: {verdicts.get(node, 'not serving yet')}" for node in self.nodes)
        for node, words in self.seen.last_words.items():
            yield f"{node}'s sentinel: {words}"

    async def _keepalived_says(self) -> list[str]:
        """Return what keepalived has against its files, which names file and line."""
        said: list[str] = []
        for node in self.nodes.values():
            own = ("-f", node.machine.keepalived_conf, "-i", node.machine.config_id)
            try:
                await node.run("keepalived", "-t", *own)
            except WorldError as error:
                said += str(error).splitlines()[1:]
        return said

    def need_servers(self) -> None:
        """Raise LackingError where the servers make no difference to the client."""
        if self.status >= client.FAILURE:
            raise LackingError(
                f"HAProxy itself answers a client without a host name here ({self.status}), so"
                " that nothing is seen of the servers"
            )

    def signal(self, node: Node, name: str, number: signal.Signals) -> None:
        """Send a signal to all of a node's processes of that name."""
        send(number, *node.named(name))
