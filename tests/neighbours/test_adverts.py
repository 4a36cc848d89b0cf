"""Adverts of other machines, on a real (virtual) Ethernet, among everything else there."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from lans import Host, inside, mac, running_lan
from nodes import needs_root
from privileges import as_nobody
from processes import descriptors
from vrrpadverts import advert

from sentinel.neighbours import filters
from sentinel.neighbours.adverts import BURST_MAX, REST_S, Adverts
from sentinel.neighbours.packets import Advert
from sentinel.neighbours.wire import ETH_P_IP, ETH_P_IPV6, open_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [needs_root, pytest.mark.real]

DEADLINE_S: Final = 10.0
OLD: Final = Advert(
    source="192.0.2.2", version=2, router_id=51, priority=250, addresses=("192.0.2.99",)
)
NEW: Final = Advert(
    source="fe80::2", version=3, router_id=51, priority=250, addresses=("fe80::99", "2001:db8::99")
)
GROUP_MAC: Final = bytes.fromhex("01005e000012")
GROUP_MAC_V6: Final = bytes.fromhex("333300000012")
EVERYWHERE: Final = {("eth0", 4): frozenset({51}), ("eth0", 6): frozenset({51})}
_SOL_PACKET: Final = 263
_PACKET_STATISTICS: Final = 6


class Heard(list[tuple[str, Advert, str]]):
    """What was heard; it is what ``Adverts`` calls."""

    def __call__(self, interface: str, advert: Advert, mac: str) -> None:
        """Keep it."""
        self.append((interface, advert, mac))


@pytest.fixture(scope="module", name="lan")
def _lan() -> Iterator[tuple[Host, ...]]:
    with running_lan(2) as hosts:
        yield hosts


@pytest.fixture(name="heard")
def _heard() -> Heard:
    return Heard()


@contextmanager
def listening(host: Host, heard: Heard) -> Iterator[Adverts]:
    """Listen in *host*, where the test stays."""
    with inside(host):
        ears = Adverts(heard)
        assert ears.follow(EVERYWHERE) == ""
        try:
            yield ears
        finally:
            ears.close()


@contextmanager
def speaking(host: Host) -> Iterator[Callable[[bytes, bytes], None]]:
    """Give a way to say something on the wire of *host*: the MAC it is for, and the rest."""
    with inside(host):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with sock:
        sock.bind(("eth0", 0))
        yield lambda to, rest: _say(sock, to, rest)


def _say(sock: socket.socket, to: bytes, rest: bytes) -> None:
    sock.send(to + sock.getsockname()[4] + rest)


def say(host: Host, *adverts: Advert) -> None:
    """Say adverts as keepalived does."""
    with speaking(host) as send:
        for said in adverts:
            old = ":" not in said.source
            kind = (ETH_P_IP if old else ETH_P_IPV6).to_bytes(2)
            send(GROUP_MAC if old else GROUP_MAC_V6, kind + advert(said))


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until *condition* is true."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.005)


async def test_adverts_of_others_are_heard(lan: tuple[Host, ...], heard: Heard) -> None:
    """Of both families, with the MAC they came from."""
    with listening(lan[0], heard):
        say(lan[1], OLD, NEW)
        await until(lambda: len(heard) == 2)
    assert set(heard) == {("eth0", OLD, mac(2)), ("eth0", NEW, mac(2))}


async def test_our_own_are_not(lan: tuple[Host, ...], heard: Heard) -> None:
    """Neither as they leave, nor when somebody sends them back."""
    with listening(lan[0], heard):
        say(lan[0], OLD, NEW)
        with speaking(lan[1]) as send:  # each frame has the sender's MAC behind the target's
            send(GROUP_MAC, b"\x08\x00" + advert(OLD))
        await until(lambda: heard)
        echo = bytes.fromhex(mac(1).replace(":", "")) + b"\x08\x00" + advert(OLD)
        with inside(lan[1]), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
            sock.bind(("eth0", 0))
            sock.send(GROUP_MAC + echo)
        say(lan[1], OLD)
        await until(lambda: len(heard) == 2)
    assert [source for _, _, source in heard] == [mac(2)] * 2


async def test_a_shared_virtual_mac_is_not_our_own(lan: tuple[Host, ...], heard: Heard) -> None:
    """With use_vmac on both nodes only their addresses differ: RFC 9568, 7.3."""
    virtual = "00:00:5e:00:01:33"
    for host in lan:
        macvlan = ("type", "macvlan", "mode", "private")
        host.ip("link", "add", "link", "eth0", "name", "vrrp.51", "address", virtual, *macvlan)
    try:
        with listening(lan[0], heard):
            with inside(lan[1]), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
                sock.bind(("eth0", 0))
                source = bytes.fromhex(virtual.replace(":", ""))
                sock.send(GROUP_MAC + source + b"\x08\x00" + advert(OLD))
            await until(lambda: heard)
    finally:
        for host in lan:
            host.ip("link", "del", "vrrp.51")
    assert heard == [("eth0", OLD, virtual)]


async def test_unicast_adverts_are_heard_if_they_are_for_us(
    lan: tuple[Host, ...], heard: Heard
) -> None:
    """unicast_peer: the frame is for our MAC, and one for another's is not ours to hear."""
    say(lan[0], OLD)  # from here on the switch knows where we are
    misled = replace(OLD, priority=1)
    with listening(lan[0], heard), speaking(lan[1]) as send:
        send(bytes.fromhex("020000000077"), b"\x08\x00" + advert(misled, to="192.0.2.1"))
        send(bytes.fromhex(mac(1).replace(":", "")), b"\x08\x00" + advert(OLD, to="192.0.2.1"))
        await until(lambda: heard)
    assert heard == [("eth0", OLD, mac(2))]


async def test_another_vlan_is_another_wire(lan: tuple[Host, ...], heard: Heard) -> None:
    """A tagged frame on an interface without that VLAN is not of its virtual routers."""
    with listening(lan[0], heard):
        with speaking(lan[1]) as send:
            send(GROUP_MAC, b"\x81\x00\x00\x05\x08\x00" + advert(OLD))
        say(lan[1], NEW)
        await until(lambda: heard)
    assert heard == [("eth0", NEW, mac(2))]


async def test_what_is_listened_for_can_change(lan: tuple[Host, ...], heard: Heard) -> None:
    """An instance more, and then none: without a word lost or too many."""
    other = Advert(source="192.0.2.2", version=2, router_id=52, priority=1, addresses=())
    with listening(lan[0], heard) as ears:
        ears.follow({("eth0", 4): frozenset({51, 52})})
        say(lan[1], other, NEW)
        await until(lambda: heard)
        ears.follow({("eth0", 4): frozenset({51})})
        say(lan[1], other, OLD)
        await until(lambda: len(heard) == 2)
    assert [said for _, said, _ in heard] == [other, OLD]


def wakers() -> int:
    """Return how many descriptors can wake the event loop (/proc/PID/fdinfo in proc(5))."""
    infos = Path("/proc/self/fdinfo").iterdir()
    return sum(info.read_text().count("tfd:") for info in infos if info.exists())


async def test_an_interface_that_was_down_is_heard_again(
    lan: tuple[Host, ...], heard: Heard
) -> None:
    """And while it is down nothing wakes us."""
    before = wakers()
    with listening(lan[0], heard) as ears:
        assert wakers() == before + len(EVERYWHERE)
        lan[0].ip("link", "set", "eth0", "down")
        await until(lambda: wakers() == before)  # a socket tells us once, and again whenever asked
        lan[0].ip("link", "set", "eth0", "up")

        def heard_again() -> bool:
            ears.follow(EVERYWHERE)
            say(lan[1], OLD)
            return bool(heard)

        await until(heard_again)


async def test_an_interface_that_was_replaced_is_heard_again(
    lan: tuple[Host, ...], heard: Heard
) -> None:
    """Another of the same name has another number."""
    wanted = {("extra0", 4): frozenset({51})}
    with listening(lan[0], heard) as ears:
        assert ears.follow(wanted) == "cannot listen on extra0: No such device"
        for _ in range(2):
            heard.clear()
            lan[0].ip("link", "add", "extra0", "type", "veth", "peer", "name", "far0")
            for name in ("extra0", "far0"):
                lan[0].ip("link", "set", name, "up")
            assert ears.follow(wanted) == ""
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
                sock.bind(("far0", 0))
                sock.send(GROUP_MAC + bytes.fromhex("020000000077") + b"\x08\x00" + advert(OLD))
            await until(lambda: heard)
            lan[0].ip("link", "del", "extra0")
            await until(lambda: "extra0" in ears.follow(wanted))


async def test_a_flood_of_adverts_is_read_in_portions(lan: tuple[Host, ...], heard: Heard) -> None:
    """Whoever makes them up does not keep us from anything else."""
    with listening(lan[0], heard):
        say(lan[1], *[OLD] * 200)
        loop, begun_s = asyncio.get_running_loop(), time.monotonic()
        seen = [0]
        while len(heard) < 2 * BURST_MAX + 1:
            turn = loop.create_future()
            loop.call_soon(turn.set_result, None)
            await turn
            seen.append(len(heard))
            assert time.monotonic() < begun_s + DEADLINE_S
        assert time.monotonic() - begun_s >= REST_S
    assert max(after - before for before, after in pairwise(seen)) <= BURST_MAX


def test_foreign_traffic_does_not_wake_us(lan: tuple[Host, ...]) -> None:
    """Of 100,000 UDP packets not one passes the kernel's filter."""
    with inside(lan[0]):
        sockets = [
            open_on("eth0", ETH_P_IP, filters.adverts_in_ipv4({51})),
            open_on("eth0", ETH_P_IPV6, filters.adverts_in_ipv6({51})),
        ]
    before = received(lan[0])
    with inside(lan[1]), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(100_000):
            sender.sendto(b"\x31\x33", ("192.0.2.1", 9))
    assert received(lan[0]) - before >= 100_000
    say(lan[1], OLD, NEW)
    for sock in sockets:
        with sock:
            raw = sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
            assert struct.unpack("=II", raw) == (1, 0), "the advert alone, and none lost"


def received(host: Host) -> int:
    """Return how many packets have come to *host*."""
    lines = host.node.run("cat", "/proc/net/dev").stdout.splitlines()
    return next(int(line.split()[2]) for line in lines if line.split()[0] == "eth0:")


async def test_nothing_is_left_open(lan: tuple[Host, ...], heard: Heard) -> None:
    """Masters come and go for years."""
    with inside(lan[0]):
        ears = Adverts(heard)
        ears.follow(EVERYWHERE)
        before = descriptors()
        for _ in range(5):
            ears.follow({})
            ears.follow(EVERYWHERE)
        await until(lambda: descriptors() == before)
        ears.close()
        await until(lambda: descriptors() == before - 2)


async def test_without_the_capability_it_says_so(heard: Heard) -> None:
    """CAP_NET_RAW may be missing from the unit; nothing is raised."""
    ears = Adverts(heard)
    with as_nobody():
        assert ears.follow(EVERYWHERE) == "cannot listen on eth0: Operation not permitted"
