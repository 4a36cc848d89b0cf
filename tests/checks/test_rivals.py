"""Who else holds what this node holds, with real keepalived on a real (virtual) Ethernet."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import pytest
from lans import Host, captured, capturing, deaf_to_vrrp, inside, mac, running_lan
from nodes import needs_root
from vrrpadverts import advert

from sentinel.checks.rivals import RivalsCheck
from sentinel.config import Pace
from sentinel.model import Observation, Scope, Verdict
from sentinel.neighbours import packets
from sentinel.neighbours.announce import announce
from sentinel.neighbours.packets import Advert
from sentinel.vrrp import InstanceView, Rival, RivalsView, Vip, VrrpInstance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [needs_root, pytest.mark.real]

DEADLINE_S: Final = 20.0
INTER_S: Final = 0.5
#: VRRP version 3 allows adverts a fifth of a second apart, so that all this takes seconds.
ADVERT_INT_S: Final = 0.2
IPV4: Final = VrrpInstance(
    name="VI_4",
    interface="eth0",
    router_id=51,
    version=3,
    advert_int_s=ADVERT_INT_S,
    vips=(
        Vip(address="192.0.2.98", prefix=24, interface="eth0"),
        Vip(address="192.0.2.99", prefix=24, interface="eth0"),
    ),
)
IPV6: Final = replace(
    IPV4,
    name="VI_6",
    vips=(
        Vip(address="fe80::99", prefix=64, interface="eth0"),
        Vip(address="2001:db8::99", prefix=64, interface="eth0"),
    ),
)
CONF: Final = """\
vrrp_instance {instance.name} {{
    version 3
    state BACKUP
    interface eth0
    virtual_router_id {instance.router_id}
    priority {priority}
    advert_int {instance.advert_int_s}
    virtual_ipaddress {{
        {vips}
    }}
}}
"""


def conf(instance: VrrpInstance, priority: int) -> str:
    """Return keepalived.conf's part for an instance."""
    vips = "\n        ".join(f"{vip.address}/{vip.prefix}" for vip in instance.vips)
    return CONF.format(instance=instance, priority=priority, vips=vips)


@contextmanager
def keepalived(host: Host, priority: int, folder: Path) -> Iterator[None]:
    """Run the real keepalived in *host*."""
    text = "global_defs {\n}\n" + conf(IPV4, priority) + conf(IPV6, priority)
    path = host.node.path("/run/keepalived.conf")
    path.write_text(text)
    argv = ("keepalived", "-n", "-l", "-D", "-P", "-f", "/run/keepalived.conf")
    pids = ("-p", "/run/keepalived.pid", "-r", "/run/vrrp.pid")
    with host.node.running(*argv, *pids, log=folder / f"keepalived-{host.number}.log"):
        yield


def held(host: Host) -> tuple[InstanceView, ...]:
    """Return the instances whose VIPs a host has all of."""
    links = json.loads(host.node.run("ip", "-json", "address", "show", "dev", "eth0").stdout)
    here = {entry["local"] for link in links for entry in link["addr_info"]}
    return tuple(
        InstanceView(instance=instance, present=instance.vips)
        for instance in (IPV4, IPV6)
        if {vip.address for vip in instance.vips} <= here
    )


@dataclass(slots=True, kw_only=True)
class Watched:
    """A check at work as the supervisor does it: at its turn, and when it wishes."""

    check: RivalsCheck
    wake: asyncio.Event
    claims: list[str]
    seen: list[Observation] = field(default_factory=list)

    async def look(self) -> Observation:
        """Run the check once."""
        self.wake.clear()
        self.seen.append(await self.check())
        return self.seen[-1]

    async def until(self, true: Callable[[Observation], object]) -> Observation:
        """Run it until an observation is as wished."""
        deadline_s = time.monotonic() + DEADLINE_S
        while not true(observation := await self.look()):
            assert time.monotonic() < deadline_s, observation
            try:
                async with asyncio.timeout(INTER_S):
                    await self.wake.wait()
            except TimeoutError:
                pass
        return observation


@contextmanager
def watched(host: Host, views: Callable[[], tuple[InstanceView, ...]]) -> Iterator[Watched]:
    """Be in *host* and check there."""
    wake = asyncio.Event()
    with inside(host), ExitStack() as stack:
        claims: list[str] = []
        check = RivalsCheck(Pace(inter_s=INTER_S), views, announce, wake.set, claims.append)
        stack.callback(check.close)
        yield Watched(check=check, wake=wake, claims=claims)


@pytest.fixture(scope="module", name="lan")
def _lan() -> Iterator[tuple[Host, ...]]:
    with running_lan(3) as hosts:
        yield hosts


@pytest.fixture(name="alone")
def _alone(lan: tuple[Host, ...]) -> Iterator[Callable[[], tuple[InstanceView, ...]]]:
    """The first host holds everything, by hand; what it says it holds."""
    vips = [f"{vip.address}/{vip.prefix}" for vip in (*IPV4.vips, *IPV6.vips)]
    for vip in vips:
        lan[0].add(vip)
    views = held(lan[0])
    assert len(views) == 2
    yield lambda: views
    for vip in vips:
        lan[0].remove(vip)


def found(observation: Observation) -> dict[str, set[Rival]]:
    """Return the rivals of each instance."""
    assert isinstance(observation.view, RivalsView)
    return {name: set(rivals) for name, rivals in observation.view.rivals.items()}


async def test_who_holds_nothing_looks_for_nobody(lan: tuple[Host, ...]) -> None:
    """A BACKUP hears adverts all day."""
    with watched(lan[0], lambda: ()) as here:
        observation = await here.look()
    assert (observation.verdict, observation.detail) == (Verdict.PASS, "not MASTER")
    assert observation.scope is Scope.VRRP
    assert found(observation) == {}


async def test_two_keepalived_and_one_master(lan: tuple[Host, ...], tmp_path: Path) -> None:
    """Through a hand-over from the one to the other nothing is alarmed about."""
    with ExitStack() as stack:
        here = stack.enter_context(watched(lan[0], lambda: held(lan[0])))
        stack.enter_context(keepalived(lan[1], 100, tmp_path))
        await here.until(lambda _: len(held(lan[1])) == 2)
        stack.enter_context(keepalived(lan[0], 150, tmp_path))
        await here.until(lambda seen: "VI_4, VI_6" in seen.detail and not held(lan[1]))
        settled = len(here.seen)
        await here.until(lambda _: len(here.seen) == settled + 5)
    assert {seen.verdict for seen in here.seen} == {Verdict.PASS}, here.seen
    assert here.seen[0].detail == "not MASTER"
    assert {seen.detail for seen in here.seen[settled:]} == {"alone with VI_4, VI_6"}


async def test_a_split_brain_by_one_way_loss_is_seen_and_healed(
    lan: tuple[Host, ...], tmp_path: Path
) -> None:
    """The BACKUP hears us no more, becomes MASTER as well, and we hear it; then it is cured."""
    own = bytes.fromhex(mac(1).replace(":", ""))
    with ExitStack() as stack:
        here = stack.enter_context(watched(lan[0], lambda: held(lan[0])))
        for number, priority in ((0, 150), (1, 100)):
            stack.enter_context(keepalived(lan[number], priority, tmp_path))
        await here.until(lambda seen: "VI_4, VI_6" in seen.detail)
        with deaf_to_vrrp(lan[1]):
            split = await here.until(lambda seen: len(said(seen)) == 4)
            assert split.verdict is Verdict.FAIL
        sock = stack.enter_context(capturing(lan[2]))
        healed = await here.until(lambda seen: seen.verdict is Verdict.PASS)
        frames = [frame for frame in captured(sock) if frame[6:12] == own]
    for words in (
        f"VI_4: another MASTER speaks from 192.0.2.2, priority 100 ({mac(2)})",
        f"192.0.2.99 is also held by {mac(2)} (ARP)",
        f"2001:db8::99 is also held by {mac(2)} (ND)",
    ):
        assert any(words in seen.detail for seen in here.seen), words
    assert healed.detail.startswith("alone again with VI_")
    # keepalived's own announcements are requests alone
    replies = [packets.parse_arp(f[14:]) for f in frames if f[12:14] == b"\x08\x06" and f[21] == 2]
    assert packets.Arp(mac=mac(1), address="192.0.2.99") in replies
    assert packets.Advertisement(mac=mac(1), address="2001:db8::99") in [
        packets.parse_advertisement(frame[14:]) for frame in frames
    ]


def said(observation: Observation) -> set[tuple[str, str]]:
    """Return of which instances there are rivals, and how they are known."""
    return {(name, rival.how) for name, rivals in found(observation).items() for rival in rivals}


@pytest.mark.parametrize(
    ("vip", "instance", "how"),
    [("192.0.2.99/24", "VI_4", "ARP"), ("2001:db8::99/64", "VI_6", "ND")],
)
async def test_a_holder_that_does_not_speak_vrrp_is_seen(
    lan: tuple[Host, ...],
    alone: Callable[[], tuple[InstanceView, ...]],
    vip: str,
    instance: str,
    how: str,
) -> None:
    """Whoever has the second of two VIPs; when he has gone it is announced, once."""
    address = vip.partition("/")[0]
    with watched(lan[0], alone) as here:
        lan[2].add(vip)
        try:
            seen = await here.until(lambda seen: seen.verdict is Verdict.FAIL)
        finally:
            lan[2].remove(vip)
        assert seen.detail == f"{address} is also held by {mac(3)} ({how})"
        assert found(seen) == {instance: {Rival(how=how, address=address, mac=mac(3))}}
        healed = await here.until(lambda seen: seen.verdict is Verdict.PASS)
        after = await here.look()
    assert healed.detail.startswith(f"alone again with {instance}, announced ")
    assert address in healed.detail
    assert after.detail == "alone with VI_4, VI_6"


def speak(host: Host, said: Advert) -> None:
    """Say an advert as keepalived does."""
    with inside(host), socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as sock:
        sock.sendto(advert(said), ("eth0", 0x0800, 0, 0, bytes.fromhex("01005e000012")))


FOREIGN: Final = Advert(
    source="192.0.2.7", version=3, router_id=51, priority=250, addresses=("192.0.2.98",)
)


async def test_one_advert_is_no_rival_but_wakes_us(
    lan: tuple[Host, ...], alone: Callable[[], tuple[InstanceView, ...]]
) -> None:
    """It may be the last of the MASTER before us."""
    with watched(lan[0], alone) as here:
        await here.look()
        speak(lan[1], FOREIGN)
        async with asyncio.timeout(DEADLINE_S):
            await here.wake.wait()
        assert here.claims == [IPV4.name]
        assert (await here.look()).verdict is Verdict.PASS
        async with asyncio.timeout(DEADLINE_S):
            await here.wake.wait()  # it asks to be run again, when he would count
        assert (await here.look()).verdict is Verdict.PASS


@pytest.mark.parametrize(
    "said",
    [
        replace(FOREIGN, priority=0),
        replace(FOREIGN, router_id=52),
        replace(FOREIGN, addresses=("203.0.113.1",)),
    ],
    ids=["giving up", "another VRID", "other addresses"],
)
async def test_adverts_that_are_no_claim_on_our_vips(
    lan: tuple[Host, ...], alone: Callable[[], tuple[InstanceView, ...]], said: Advert
) -> None:
    """A MASTER that steps down, and other virtual routers, one with our VRID among them."""
    begun_s = time.monotonic()
    with watched(lan[0], alone) as here:
        while time.monotonic() < begun_s + 2 * (ADVERT_INT_S + 1):
            await here.look()
            speak(lan[1], said)
            speak(lan[1], said)
        assert not here.wake.is_set()
        assert not here.claims
    assert {seen.verdict for seen in here.seen} == {Verdict.PASS}


async def test_what_is_lost_is_forgotten(
    lan: tuple[Host, ...], alone: Callable[[], tuple[InstanceView, ...]]
) -> None:
    """A node that became BACKUP announces nothing and remembers nobody."""
    views = alone()

    def is_alarmed(seen: Observation) -> bool:
        speak(lan[1], FOREIGN)
        return seen.verdict is Verdict.FAIL

    with watched(lan[0], lambda: views) as here:
        await here.look()
        seen = await here.until(is_alarmed)
        words = "another MASTER speaks from 192.0.2.7, priority 250"
        assert seen.detail == f"VI_4: {words} ({mac(2)})"
        views = ()
        assert (await here.look()).detail == "not MASTER"
        views = alone()
        seen = await here.look()
    assert (seen.verdict, seen.detail) == (Verdict.PASS, "alone with VI_4, VI_6")


async def test_what_is_lost_during_the_look_is_not_judged(
    lan: tuple[Host, ...], alone: Callable[[], tuple[InstanceView, ...]]
) -> None:
    """Whoever answered has taken over."""
    views = [(), alone(), (), alone()]
    with watched(lan[0], views.pop) as here:
        details = [(await here.look()).detail for _ in range(2)]
    assert details == ["not MASTER", "not MASTER"]
    assert not views


async def test_a_missing_interface_is_unknown(lan: tuple[Host, ...]) -> None:
    """Not to be able to look is not to be alone."""
    vip = Vip(address="192.0.2.99", prefix=24, interface="eth7")
    instance = VrrpInstance(name="VI_7", interface="eth7", router_id=7, vips=(vip,))
    with watched(lan[0], lambda: (InstanceView(instance=instance, present=(vip,)),)) as here:
        seen = await here.look()
    assert (seen.verdict, seen.detail) == (
        Verdict.UNKNOWN,
        "cannot probe on eth7: No such device",
    )
