"""Who has a VIP, asked of real kernels on a real (virtual) Ethernet."""

from __future__ import annotations

import asyncio
import errno
import threading
from typing import TYPE_CHECKING

import pytest
from hanging import hanging
from haproxies import DEADLINE_S
from lans import Host, captured, capturing, inside, mac, running_lan, second_cable
from nodes import needs_root

from sentinel.aside import Aside
from sentinel.neighbours import packets
from sentinel.neighbours.announce import announce
from sentinel.neighbours.probe import probe, probe_all
from sentinel.vrrp import Rival, Vip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [needs_root, pytest.mark.real]

IPV4 = Vip(address="192.0.2.99", prefix=24, interface="eth0")
IPV6 = Vip(address="2001:db8::99", prefix=64, interface="eth0")


@pytest.fixture(scope="module", name="lan")
def _lan() -> Iterator[tuple[Host, ...]]:
    with running_lan(3) as hosts:
        for vip in (IPV4, IPV6):
            hosts[0].add(f"{vip.address}/{vip.prefix}")
        yield hosts


async def test_the_holder_alone_hears_nothing(lan: tuple[Host, ...]) -> None:
    """Our own kernel does not answer us."""
    with inside(lan[0]):
        assert await probe_all((IPV4, IPV6), Aside("asking")) == {IPV4: (), IPV6: ()}


@pytest.mark.parametrize(("vip", "how"), [(IPV4, "ARP"), (IPV6, "ND")])
async def test_every_other_holder_is_a_rival(lan: tuple[Host, ...], vip: Vip, how: str) -> None:
    """Two other machines answer, each with its MAC."""
    text = f"{vip.address}/{vip.prefix}"
    for host in lan[1:]:
        host.add(text)
    try:
        with inside(lan[0]):
            found = await probe(vip)
    finally:
        for host in lan[1:]:
            host.remove(text)
    assert set(found) == {Rival(how=how, address=vip.address, mac=mac(n)) for n in (2, 3)}


async def test_nobody_else_who_blocks_holds_the_question_up(lan: tuple[Host, ...]) -> None:
    """Whatever waits for the disk or for a name server, be there ever so much of it."""
    over, loop = threading.Event(), asyncio.get_running_loop()
    for _ in range(64):  # more threads than asyncio has
        loop.run_in_executor(None, over.wait)
    try:
        with inside(lan[0]):
            async with asyncio.timeout(DEADLINE_S):
                assert await probe_all((IPV4,), Aside("asking")) == {IPV4: ()}
                await announce((IPV4,))
    finally:
        over.set()


async def test_a_kernel_that_hangs_is_said_of_each(tmp_path: Path) -> None:
    """And nothing more is asked of it."""
    aside = Aside("asking")
    async with hanging(aside, tmp_path / "pipe"):
        found = await probe_all((IPV4, IPV6), aside)
    assert [str(answer) for answer in found.values()] == ["asking hangs"] * 2


async def test_the_answers_to_several_questions_are_kept_apart(lan: tuple[Host, ...]) -> None:
    """Every VIP of an interface is asked for on one socket."""
    vips = tuple(
        Vip(address=f"192.0.2.{n}", prefix=24, interface="eth0") for n in (2, 3, 99, 200)
    ) + tuple(Vip(address=f"2001:db8::{n}", prefix=64, interface="eth0") for n in (2, 3, 99))
    with inside(lan[0]):
        found = await probe_all(vips, Aside("asking"))
    assert {vip.address: answer for vip, answer in found.items()} == {
        "192.0.2.2": (Rival(how="ARP", address="192.0.2.2", mac=mac(2)),),
        "192.0.2.3": (Rival(how="ARP", address="192.0.2.3", mac=mac(3)),),
        "192.0.2.99": (),
        "192.0.2.200": (),
        "2001:db8::2": (Rival(how="ND", address="2001:db8::2", mac=mac(2)),),
        "2001:db8::3": (Rival(how="ND", address="2001:db8::3", mac=mac(3)),),
        "2001:db8::99": (),
    }


async def test_no_neighbour_learns_from_a_question(lan: tuple[Host, ...]) -> None:
    """A probe claims nothing: the other one's table stays as it was."""
    lan[1].add("192.0.2.77/24")
    lan[1].ip("neighbour", "flush", "dev", "eth0")
    try:
        with inside(lan[0]):
            assert await probe(Vip(address="192.0.2.77", prefix=24, interface="eth0"))
    finally:
        lan[1].remove("192.0.2.77/24")
    assert lan[0].mac not in lan[1].node.run("ip", "neighbour").stdout


async def test_where_there_is_no_wire_there_is_no_rival(lan: tuple[Host, ...]) -> None:
    """The loopback interface has no neighbours."""
    with inside(lan[0]):
        assert await probe(Vip(address="127.0.0.1", prefix=8, interface="lo")) == ()


async def test_a_second_interface_of_our_own_is_no_rival(lan: tuple[Host, ...]) -> None:
    """A node with two interfaces on one wire answers itself, with a MAC of its own."""
    with second_cable(lan[0], "02:00:00:00:00:aa"), capturing(lan[0]) as sock:
        with inside(lan[0]):
            assert await probe(IPV4) == ()
        answers = [packets.parse_arp(frame[14:]) for frame in captured(sock)]
    assert packets.Arp(mac="02:00:00:00:00:aa", address=IPV4.address) in answers


async def test_a_missing_interface_is_an_error_of_its_vips_alone(lan: tuple[Host, ...]) -> None:
    """The others are asked for all the same."""
    gone = Vip(address="192.0.2.99", prefix=24, interface="eth7")
    down = Vip(address="192.0.2.99", prefix=24, interface="down0")
    taken = Vip(address="192.0.2.2", prefix=24, interface="eth0")
    lan[0].ip("link", "add", "down0", "link", "eth0", "type", "macvlan")
    try:
        with inside(lan[0]):
            found = await probe_all((gone, down, taken), Aside("asking"))
            with pytest.raises(OSError, match="No such device"):
                await probe(gone)
    finally:
        lan[0].ip("link", "del", "down0")
    for vip, number in ((gone, errno.ENODEV), (down, errno.ENETDOWN)):
        hindered = found[vip]
        assert isinstance(hindered, OSError)
        assert hindered.errno == number
    assert found[taken] == (Rival(how="ARP", address="192.0.2.2", mac=mac(2)),)
