"""What the drill does to a world: how faults happen and how they are healed.

A deed speaks of the master unless its name says otherwise: it is the node that holds the VIP.
"""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Final

from sentinel.drill import surroundings
from sentinel.drill.faults import Deed
from sentinel.drill.node import Proc, run, send, wait_ready
from sentinel.drill.plan import MASTER_CLI
from sentinel.drill.world import World

KILL: Final = signal.SIGKILL
STOP: Final = signal.SIGSTOP
_RESTART_S: Final = 0.5  # RestartSec= of sentinel.service


def all_of(name: str, number: signal.Signals) -> Deed:
    """Send a signal to all processes of that name on the master."""

    async def deed(world: World) -> None:
        world.signal(world.master, name, number)

    return deed


def worker_alone(number: signal.Signals) -> Deed:
    """Send a signal to HAProxy's worker on the master."""

    async def deed(world: World) -> None:
        send(number, *world.master.workers())

    return deed


async def break_configuration(world: World) -> None:
    """Break haproxy.cfg, let sentinel see it, then kill HAProxy."""
    begun_s = time.monotonic()
    _write_cfg(world, f"nonsense\n{world.plan.haproxy_cfg}")
    await world.wait_event(world.master, "configuration.invalid", begun_s)
    world.seen.mark("HAProxy is killed")
    world.signal(world.master, "haproxy", KILL)


async def mend_configuration(world: World) -> None:
    """Write the user's haproxy.cfg back."""
    _write_cfg(world, world.plan.haproxy_cfg)


def _write_cfg(world: World, text: str) -> None:
    world.master.write(world.plan.config.haproxy.config[0], text)


async def take_port(world: World) -> None:
    """Kill HAProxy, and let a stranger have its port first."""
    host = "[::]" if ":" in world.plan.target.place.host else "0.0.0.0"  # noqa: S104  (a node's own)
    place = f"{host}:{world.plan.target.place.port}"
    stranger = await world.start_in(world.master, "occupant", place)
    world.signal(world.master, "haproxy", KILL)
    await wait_ready(stranger, "the stranger", b"taken")


async def free_port(world: World) -> None:
    """Kill the stranger."""
    world.master.signal_standin("occupant", KILL)


async def fill(world: World) -> None:
    """Hold as many connections as HAProxy takes, and some more."""
    world.need_servers()
    begun_s = time.monotonic()
    place = str(world.plan.target.place)
    await world.start_own("crowd", place, str(world.plan.maxconn + 50))
    await world.wait_event(world.master, "haproxy.saturated", begun_s)


async def fail_over_crowded(world: World) -> None:
    """Let a crowd hold most of HAProxy's connections, then stop keepalived under it."""
    world.need_servers()
    place = str(world.plan.target.place)
    count = world.plan.maxconn * 4 // 5
    crowd = await world.start_own("crowd", place, str(count))
    await wait_ready(crowd, "the crowd", b"gathered")
    world.seen.mark(f"keepalived is stopped under {count} connections")
    await world.master.service("keepalived", "stop")


async def come_back(world: World) -> None:
    """Start keepalived again and send the crowd home."""
    await world.master.service("keepalived", "start")
    await send_crowd_home(world)


async def send_crowd_home(world: World) -> None:
    """End the crowd's connections; HAProxy itself would wait for its servers' answers."""
    await world.end_own("crowd")
    await surroundings.speed_up(world)


async def exhaust_descriptors(world: World) -> None:
    """Lower the worker's limit of open files below what it has: it can accept nothing more.

    As the worker's own user, since another's limits are CAP_SYS_RESOURCE's to set.
    """
    for worker in world.master.workers():
        uid, gid = _ids(worker)
        user = ("setpriv", f"--reuid={uid}", f"--regid={gid}", "--keep-groups")
        await run(*user, "prlimit", "--pid", str(worker.pid), "--nofile=3:")


def _ids(proc: Proc) -> tuple[str, str]:
    """Return user and group of a process."""
    lines = Path(f"/proc/{proc.pid}/status").read_text().splitlines()
    uid, gid = (line.split()[1] for line in lines if line.startswith(("Uid:", "Gid:")))
    return uid, gid


def order(verb: str) -> Deed:
    """Give the master's sentinel an order, as an administrator does."""

    async def deed(world: World) -> None:
        await world.order(world.master, verb)

    return deed


async def pause(world: World) -> None:
    """Pause sentinel, then kill HAProxy."""
    await world.order(world.master, "pause")
    world.seen.mark("HAProxy is killed")
    world.signal(world.master, "haproxy", KILL)


async def kill_keepalived(world: World) -> None:
    """Kill keepalived's whole group so that none of it can tidy up when another one dies."""
    world.signal(world.master, "keepalived", STOP)
    world.signal(world.master, "keepalived", KILL)


async def spin(world: World) -> None:
    """Let every thread of HAProxy's worker loop, by its own ``debug dev loop``."""
    (worker,) = world.master.workers()
    cli = str(world.master.path(MASTER_CLI))
    await world.start_own("spin", cli, str(2 * _threads(worker)))


def _threads(proc: Proc) -> int:
    return len(list(Path(f"/proc/{proc.pid}/task").iterdir()))


async def end_spin(world: World) -> None:
    """Take the commands back; the worker that they went to is gone."""
    await world.end_own("spin")


def service(name: str, verb: str) -> Deed:
    """Start or stop a service of the master as an administrator does."""

    async def deed(world: World) -> None:
        await world.master.service(name, verb)

    return deed


async def delete_vip(world: World) -> None:
    """Delete the VIP as somebody in a hurry might."""
    vip = world.plan.target.place.host
    shown = await world.master.run("ip", "-o", "address", "show", "to", vip)
    words = shown.split()
    await world.master.run("ip", "address", "del", words[3], "dev", words[1])


async def cut_power(world: World) -> None:
    """Cut the master's power."""
    await world.cut_power(world.master)


async def restore_power(world: World) -> None:
    """Boot the master."""
    await world.switch_on(world.master)


async def kill_sentinel(world: World) -> None:
    """Kill sentinel; its unit starts it again, as Restart=always does."""
    world.signal(world.master, "sentinel", KILL)
    await asyncio.sleep(_RESTART_S)
    await world.start_sentinel(world.master)


async def kill_both(world: World) -> None:
    """Kill sentinel, then HAProxy before sentinel is back."""
    world.signal(world.master, "sentinel", KILL)
    world.signal(world.master, "haproxy", KILL)
    await asyncio.sleep(_RESTART_S)
    world.seen.mark("sentinel's unit starts it again")
    await world.start_sentinel(world.master)


async def roll(world: World) -> None:
    """Restart HAProxy on both nodes, the backup first, each while the other serves."""
    for node, other in ((world.backup, world.master), (world.master, world.backup)):
        begun_s = time.monotonic()
        await world.order(node, "pause", "--drain")
        await world.wait_held_by(other)
        await node.service("haproxy", "stop")
        await world.wait_event(node, "phase.changed to=MAINT", begun_s)
        await node.service("haproxy", "start")
        await world.wait_event(node, "phase.changed to=UP", begun_s)
        await world.order(node, "resume")


async def reload(world: World) -> None:
    """Reload HAProxy three times under the client's load."""
    for _ in range(3):
        world.seen.mark("reload")
        master = int(world.master.path(world.plan.config.haproxy.pidfile).read_text())
        await world.master.run("kill", "-USR2", str(master))
        await asyncio.sleep(1.5)
