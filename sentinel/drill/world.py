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
from collections.abc import Callable
from typing import Final, Self

from sentinel.drill.node import DEADLINE_S, Node, WorldError, end, run, send, wait_ready
from sentinel.drill.plan import BACKUP, CLIENT, MASTER, SENTINEL_TOML, Plan
from sentinel.drill.witness import Witness

STEADY_WITHIN_S: Final = 30.0
_POLL_S: Final = 0.02
_STANDINS: Final = (sys.executable, "-m", "sentinel.drill.standins")
_SENTINEL: Final = (sys.executable, "-m", "sentinel")
#: As shell lines, since /proc/sys shows the namespaces of whoever opens a file. A kernel may lack
#: IPv6.
_SYSCTLS: Final = tuple(
    f"if [ -e /proc/sys/{name} ]; then echo {value} >/proc/sys/{name}; fi"
    for name, value in (
        ("net/ipv4/conf/all/rp_filter", 0),
        ("net/ipv4/conf/default/rp_filter", 0),
        ("net/ipv4/ip_nonlocal_bind", 1),
        ("net/ipv6/ip_nonlocal_bind", 1),
        ("net/ipv6/conf/default/accept_dad", 0),
    )
)


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
        """Build them with addresses that last.

        A bridge left alone has the lowest of its ports' addresses, and another one when that port
        goes with its node: the other node would lose sight of client and servers.
        """
        lines = [*_SYSCTLS, "ip link set lo up"]
        for number in range(self.plan.switches):
            name = f"switch{number} address 02:00:00:00:00:{number:02x}"
            lines.append(f"ip link add {name} type bridge stp_state 0 mcast_snooping 0")
            lines.append(f"ip link set switch{number} up")
        hosts = dict.fromkeys([CLIENT, *(place.host for place in self.plan.places)])
        lines += [f"ip address add {host} dev switch0" for host in hosts]
        routes = dict(self.plan.vips)
        for machine in self.plan.machines:
            for cable in machine.cables:
                for address in cable.addresses:
                    routes[address.partition("/")[0]] = cable.switch
        lines += [f"ip route add {host} dev switch{number}" for host, number in routes.items()]
        await run("sh", "-ec", "\n".join(lines))
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

    async def _start_client(self) -> None:
        target = self.plan.target
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sentinel.drill.client", str(target.place)),
            "tls" if target.tls else "plain",
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
        await node.service("haproxy", "start")
        await self.start_sentinel(node)
        await node.service("keepalived", "start")

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
        for cable in node.machine.cables:
            port = _port(node, cable.interface)  # which may be gone with the node already
            await run("sh", "-c", f"ip link del {port} || ! ip link show {port}")
        await node.power_off()
        self.seen.hear_loss(node.name)

    async def _lay_cables(self, node: Node) -> None:
        inside = [*_SYSCTLS, f"hostname {node.name}"]
        for number, cable in enumerate(node.machine.cables):
            port = _port(node, cable.interface)
            peer = ("peer", "name", cable.interface, "netns", str(node.pid))
            await run("ip", "link", "add", port, "type", "veth", *peer)
            await run("ip", "link", "set", port, "master", f"switch{cable.switch}", "up")
            name = cable.interface
            inside += [f"ip address add {a} dev {name}" for a in cable.addresses]
            inside.append(f"ip link set {name} up")
            if number == 0:  # everybody is a neighbour: no gateway has to be invented
                inside.append(f"ip route add default dev {name} scope link")
                inside.append(f"ip -6 route add default dev {name} || true")
        await node.run("sh", "-ec", "\n".join(inside))

    async def set_cables(self, node: Node, *state: str) -> None:
        """Set all switch ports of a node ``up`` or ``down``, or give them another property."""
        for cable in node.machine.cables:
            await run("ip", "link", "set", _port(node, cable.interface), *state)

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

    def _is_steady(self) -> bool:
        up = {event.node for event in self.seen.events if event.name == "phase.changed"}
        return self.seen.holders() == {MASTER} and self.seen.serving() and up == set(self.nodes)

    async def wait_steady(self) -> None:
        """Wait until the master serves the VIP alone and both sentinels know their HAProxy."""
        if not await self.settles(self._is_steady, 0.0, STEADY_WITHIN_S):
            said = (f"; {node}'s sentinel: {words}" for node, words in self.seen.last_words.items())
            raise WorldError(
                f"not within {STEADY_WITHIN_S:g} s: the master serves the VIP and both nodes are UP"
                f"{''.join(said)}"
            )

    def signal(self, node: Node, name: str, number: signal.Signals) -> None:
        """Send a signal to all of a node's processes of that name."""
        send(number, *node.named(name))


def _port(node: Node, interface: str) -> str:
    """Name the switch's end of a cable (IFNAMSIZ leaves 15 characters)."""
    return f"{node.name[0]}-{interface}"[:15]
