"""What the neighbours learn when VIPs are announced: real kernels on a real (virtual) Ethernet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from lans import Host, captured, capturing, inside, mac, running_lan
from nodes import needs_root

from sentinel.neighbours import packets
from sentinel.neighbours.announce import ROUNDS, announce
from sentinel.vrrp import Vip

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [needs_root, pytest.mark.real]

IPV4 = Vip(address="192.0.2.99", prefix=24, interface="eth0")
IPV6 = Vip(address="2001:db8::99", prefix=64, interface="eth0")
STALE_MAC = "02:00:00:00:00:77"


@pytest.fixture(scope="module", name="lan")
def _lan() -> Iterator[tuple[Host, ...]]:
    with running_lan(2) as hosts:
        for vip in (IPV4, IPV6):
            hosts[0].add(f"{vip.address}/{vip.prefix}")
        yield hosts


def known_mac(host: Host, vip: Vip) -> str:
    """Return where *host* believes a VIP to be."""
    words = host.node.run("ip", "neighbour", "show", vip.address).stdout.split()
    return words[words.index("lladdr") + 1]


@pytest.mark.parametrize("vip", [IPV4, IPV6], ids=lambda vip: vip.address)
async def test_a_neighbour_that_believed_another_believes_us(
    lan: tuple[Host, ...], vip: Vip
) -> None:
    """That is what it is for."""
    belief = (vip.address, "lladdr", STALE_MAC, "dev", "eth0", "nud", "stale")
    lan[1].ip("neighbour", "replace", *belief)
    assert known_mac(lan[1], vip) == STALE_MAC
    with inside(lan[0]):
        await announce((vip,))
    assert known_mac(lan[1], vip) == mac(1)


async def test_it_is_said_a_few_times_in_every_form(lan: tuple[Host, ...]) -> None:
    """As ARP request and reply, and as neighbour advertisement; each frame from our MAC."""
    own = bytes.fromhex(mac(1).replace(":", ""))
    with capturing(lan[1]) as sock:
        with inside(lan[0]):
            await announce((IPV4, IPV6))
        frames = [frame for frame in captured(sock) if frame[6:12] == own]
    arp = [frame[14:] for frame in frames if frame[12:14] == b"\x08\x06"]
    assert [packet[7] for packet in arp] == [1, 2] * ROUNDS
    assert {packets.parse_arp(packet) for packet in arp} == {
        packets.Arp(mac=mac(1), address=IPV4.address)
    }
    said = [packets.parse_advertisement(frame[14:]) for frame in frames]
    assert said.count(packets.Advertisement(mac=mac(1), address=IPV6.address)) == ROUNDS


@pytest.mark.parametrize("forwarding", [0, 1])
async def test_a_router_says_that_it_is_one(lan: tuple[Host, ...], forwarding: int) -> None:
    """Or hosts would stop using it as their gateway: RFC 4861, 7.2.5."""
    setting = "/proc/sys/net/ipv6/conf/eth0/forwarding"
    lan[0].node.run("sh", "-c", f"echo {forwarding} >{setting}")
    with capturing(lan[1]) as sock:
        with inside(lan[0]):
            await announce((IPV6,))
        frames = [f for f in captured(sock) if packets.parse_advertisement(f[14:]) is not None]
    assert {frame[14 + 44] >> 7 for frame in frames} == {forwarding}


async def test_where_there_is_no_wire_nothing_is_said(lan: tuple[Host, ...]) -> None:
    """The loopback interface has no neighbours."""
    with inside(lan[0]):
        await announce((Vip(address="127.0.0.1", prefix=8, interface="lo"),))


async def test_a_missing_interface_is_an_error(lan: tuple[Host, ...]) -> None:
    """The caller says so."""
    with inside(lan[0]), pytest.raises(OSError, match="No such device"):
        await announce((Vip(address="192.0.2.99", prefix=24, interface="eth7"),))
