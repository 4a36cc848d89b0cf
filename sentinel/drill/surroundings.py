"""What the drill does to what the programs live on: servers, cables, logs, disks, the clock."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from sentinel.drill.faults import Deed
from sentinel.drill.node import LackingError
from sentinel.drill.plan import COMMANDS
from sentinel.drill.servers import Place
from sentinel.drill.world import World

HOUR_S: Final = 3600
DAY_S: Final = 24 * HOUR_S
_BALLAST: Final = f"{COMMANDS}/ballast"
_BLOCK_BYTES: Final = 1 << 20
_CLOCK: Final = f"{COMMANDS}/clock"
_MULTICAST: Final = ("type", "bridge_slave", "mcast_flood")
_STEP_DWELL_S: Final = 3.0
#: As a number: a small system has no /etc/protocols.
_TCP: Final = socket.IPPROTO_TCP


async def slow_down(world: World) -> None:
    """Let the web servers of the master, or else those on the switch, answer slowly."""
    world.need_servers()
    if world.master.machine.places:
        world.master.signal_standin("web", signal.SIGUSR1)
    else:
        world.signal_own("web", signal.SIGUSR1)


async def speed_up(world: World) -> None:
    """Let every web server answer at once again, whatever it waits for."""
    for node in world.nodes.values():
        node.signal_standin("web", signal.SIGUSR2)
    world.signal_own("web", signal.SIGUSR2)


async def hide_servers(world: World) -> None:
    """Make all servers unreachable from the master, even those that live on it."""
    world.need_servers()
    first = ["ip rule add pref 10 lookup local", "ip rule del pref 0"]
    rules = [
        f"ip rule add pref 5 iif lo to {place.host} ipproto {_TCP} dport {place.port} unreachable"
        for place in _places(world)
    ]
    await world.master.run("sh", "-ec", "\n".join([*first, *rules]))


async def show_servers(world: World) -> None:
    """Take the rules away again."""
    await world.master.run("sh", "-ec", "ip rule del pref 5\n" * len(_places(world)))


def _places(world: World) -> tuple[Place, ...]:
    """Return all servers that are reached over IPv4, which the rules are written for."""
    every = (*world.plan.places, *(p for m in world.plan.machines for p in m.places))
    return tuple(dict.fromkeys(place for place in every if "." in place.host))


async def stop_servers(world: World) -> None:
    """Kill every web server."""
    world.need_servers()
    for node in world.nodes.values():
        node.signal_standin("web", signal.SIGKILL)
    await world.end_own("web")


async def start_servers(world: World) -> None:
    """Start every web server again."""
    await world.start_site()
    for node in world.nodes.values():
        await world.start_web(node)


def cables(*state: str) -> Deed:
    """Set the switch's ports of the master."""

    async def deed(world: World) -> None:
        await world.set_cables(world.master, *state)

    return deed


async def deafen(world: World) -> None:
    """Let the switch keep multicast, VRRP that is, from the backup, until the master notices.

    Everything else passes.
    """
    begun_s = time.monotonic()
    await world.set_cables(world.backup, *_MULTICAST, "off")
    await world.wait_event(world.master, "check.down check=rivals", begun_s)


async def undeafen(world: World) -> None:
    """Let multicast pass again."""
    await world.set_cables(world.backup, *_MULTICAST, "on")


async def stop_logs(world: World) -> None:
    """Stop what takes the logs on both nodes: its queue is full at once, and stays full."""
    for node in world.nodes.values():
        node.signal_standin("log", signal.SIGSTOP)


async def resume_logs(world: World) -> None:
    """Let the logs be taken again."""
    for node in world.nodes.values():
        node.signal_standin("log", signal.SIGCONT)


async def fill_disk(world: World) -> None:
    """Write until nothing more fits on the master, on no disk of it."""
    with world.master.path(_BALLAST).open("wb", buffering=0) as ballast, suppress(OSError):
        while ballast.write(b"\0" * _BLOCK_BYTES):
            pass


async def empty_disk(world: World) -> None:
    """Remove what filled it."""
    world.master.path(_BALLAST).unlink()


# --- the clock ------------------------------------------------------------------------------------


async def hang_clock(world: World) -> None:
    """Give sentinel and keepalived of the master a wall clock of their own, which is right.

    It is libfaketime's; HAProxy, which goes into a chroot, keeps the machine's.
    """
    library = _libfaketime()
    _set_clock(world, 0)
    wrapper = (
        "env",
        f"LD_PRELOAD={library}",
        f"FAKETIME_TIMESTAMP_FILE={_CLOCK}",
        *("FAKETIME_NO_CACHE=1", "DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1"),
    )
    world.signal(world.master, "sentinel", signal.SIGTERM)
    await world.wait_until(lambda: not world.master.named("sentinel"), "sentinel ends")
    begun_s = time.monotonic()
    await world.start_sentinel(world.master, *wrapper)
    await world.master.service("keepalived", "stop")
    await world.master.run(*wrapper, f"{COMMANDS}/keepalived-start")
    await world.wait_event(world.master, "phase.changed", begun_s)


def _libfaketime() -> Path:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        raise LackingError("there is no libfaketime here: apt-get install faketime")
    return library


async def step_clock(world: World) -> None:
    """Step the master's clock an hour ahead, then a day back."""
    _set_clock(world, HOUR_S)
    await asyncio.sleep(_STEP_DWELL_S)
    world.seen.mark("the clock is a day behind")
    _set_clock(world, -DAY_S)


async def mend_clock(world: World) -> None:
    """Let the master's clock be right again."""
    _set_clock(world, 0)


def _set_clock(world: World, ahead_s: int) -> None:
    world.master.write(_CLOCK, f"{ahead_s:+d}\n")
