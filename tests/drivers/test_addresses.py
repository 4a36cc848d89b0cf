"""This node's addresses, asked of a real kernel in a network namespace of the test's own."""

from __future__ import annotations

import asyncio
import json
import random
import resource
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from haproxies import DEADLINE_S
from namespaces import apart, ip, needs_root
from processes import descriptors

from sentinel.drivers.addresses import REST_S, Addresses
from sentinel.vrrp import Vip

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sentinel.removals import Removal

ASK = """\
import asyncio, json
from sentinel.drivers.addresses import Addresses
found = asyncio.run(Addresses(lambda: None, lambda _: None).local())
print(json.dumps(None if found is None else sorted(found)))
"""

VIP: Final = Vip(address="192.0.2.1", prefix=32, interface="v0")
VIP6: Final = Vip(address="2001:db8::99", prefix=64, interface="v0")


def asked_after(*commands: str) -> list[str] | None:
    """Return what is found in a new network namespace after the *commands* in it."""
    script = " && ".join([*commands, 'exec "$@"'])
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script, "sh", sys.executable, "-c", ASK],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[str] | None = json.loads(done.stdout)
    return found


async def local() -> frozenset[str] | None:
    """Look once, and leave nothing behind."""
    watched = Addresses(lambda: None, lambda _: None)
    try:
        return await watched.local()
    finally:
        watched.close()


async def test_loopback_is_always_there() -> None:
    """Whatever else this machine has."""
    found = await local()
    assert found is not None
    assert "127.0.0.1" in found


@needs_root
def test_a_node_without_any_address() -> None:
    """Nothing is found, which is not the same as not knowing."""
    assert asked_after("true") == []


@needs_root
def test_every_family_and_interface_is_seen() -> None:
    """IPv4 and IPv6, second addresses as keepalived adds them, an interface that is down."""
    assert asked_after(
        "ip link set lo up",
        "ip link add v0 type veth peer name v1",
        "ip address add 192.0.2.1/24 dev v0",
        "ip address add 192.0.2.100/32 dev v0",
        "ip address add 2001:db8::1/64 dev v1 nodad",
    ) == ["127.0.0.1", "192.0.2.1", "192.0.2.100", "2001:db8::1", "::1"]


@needs_root
def test_of_a_point_to_point_link_the_near_end_is_ours() -> None:
    """The peer's address is what IFA_ADDRESS names there (linux/if_addr.h)."""
    assert asked_after("ip address add 192.0.2.1 peer 192.0.2.2/32 dev lo") == ["192.0.2.1"]


@needs_root
def test_a_thousand_addresses_are_no_trouble() -> None:
    """A dump of several messages is read to its end."""
    more = (
        "for a in $(seq 0 3); do for b in $(seq 1 250); do"
        ' echo "address add 10.0.$a.$b/32 dev lo"; done; done | ip -batch -'
    )
    found = asked_after(more)
    assert found is not None
    assert len(found) == 1000


async def test_a_kernel_that_cannot_be_asked_is_unknown() -> None:
    """No descriptor is left for a socket: None, not an empty answer, and not an error."""
    await local()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        assert await local() is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_nothing_is_left_open() -> None:
    """Asked every few seconds for years."""
    await local()
    before = descriptors()
    for _ in range(20):
        await local()
    assert descriptors() == before


class Watched:
    """Addresses that are looked at when they are said to have changed, and never else."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        self.looks = 0
        self.removals: list[Removal] = []
        self.addresses = Addresses(self.woken.set, self.removals.append)

    async def look(self) -> frozenset[tuple[str, str]]:
        """Look once."""
        self.woken.clear()
        self.looks += 1
        found = await self.addresses.present()
        assert found is not None
        return found

    async def until(self, expected: set[tuple[str, str]], of: str) -> None:
        """Look at each change, until the addresses that begin with *of* are these."""
        async with asyncio.timeout(DEADLINE_S):
            while {row for row in await self.look() if row[0].startswith(of)} != expected:
                await self.woken.wait()


@asynccontextmanager
async def watching() -> AsyncIterator[Watched]:
    """Watch, and leave nothing open."""
    before = descriptors()
    watched = Watched()
    try:
        yield watched
    finally:
        watched.addresses.close()
        watched.addresses.close()
    assert descriptors() == before


def batch(rng: random.Random, here: set[str], count: int) -> str:
    """Write *count* lines for ``ip -batch`` that add and remove addresses; *here* follows them."""
    lines = []
    for _ in range(count):
        address = f"198.51.100.{rng.randrange(32)}"
        if rng.random() < 0.05:
            lines.append(f"link set v1 {rng.choice(('up', 'down'))}")
        elif address in here:
            here.remove(address)
            lines.append(f"address del {address}/32 dev v0")
        else:
            here.add(address)
            lines.append(f"address add {address}/32 dev v0")
    return "\n".join([*lines, ""])


async def run_batch(text: str) -> None:
    """Run the lines as fast as the kernel takes them."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec("ip", "-batch", "-", stdin=pipe)
    await process.communicate(text.encode())
    assert process.returncode == 0


def rss_bytes() -> int:
    """Return what of this process is in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@needs_root
def test_ten_thousand_events_cost_few_looks_and_leave_nothing() -> None:
    """Driven by changes alone, no end state is missed, and nothing grows."""

    async def body() -> None:
        rng, here = random.Random(7), set[str]()
        async with watching() as watched:
            await run_batch(batch(rng, here, 1000))
            await watched.until({(address, "v0") for address in here}, "198.51.100.")
            open_before, rss_before = descriptors(), rss_bytes()
            looks, begun_s = watched.looks, time.monotonic()
            for _ in range(20):
                text = batch(rng, here, 500)
                async with asyncio.TaskGroup() as group:
                    group.create_task(run_batch(text))
                    expected = {(address, "v0") for address in here}
                    group.create_task(watched.until(expected, "198.51.100."))
                await watched.until(expected, "198.51.100.")
            took_s = time.monotonic() - begun_s
            assert watched.looks - looks <= 20 * 3 + took_s / REST_S
            assert descriptors() == open_before
            assert rss_bytes() - rss_before < 4_000_000, "garbage in cycles, collected in the end"

    apart(body)


@needs_root
def test_a_quiet_network_wakes_nobody() -> None:
    """No timer runs; the first change is told."""

    async def body() -> None:
        async with watching() as watched:
            await watched.look()
            await asyncio.sleep(REST_S * 2)  # long enough for a timer that would wake us
            assert not watched.woken.is_set()
            ip("address", "add", "198.51.100.1/32", "dev", "v0")
            await watched.until({("198.51.100.1", "v0")}, "198.51.100.")

    apart(body)


@needs_root
def test_all_who_look_see_what_has_changed() -> None:
    """Whoever looks first reads the events; nobody else's look, and no report, is lost by it."""

    async def body() -> None:
        async with watching() as watched:
            await watched.look()
            for number in range(20):
                address = f"198.51.100.{number}"
                looks = asyncio.gather(*(watched.addresses.local() for _ in range(3)))
                ip("address", "add", f"{address}/32", "dev", "v0")
                await looks
                for found in (await watched.addresses.local(), await watched.addresses.local()):
                    assert found is not None
                    assert address in found
                async with asyncio.timeout(DEADLINE_S):
                    await watched.woken.wait()
                watched.woken.clear()

    apart(body)


@needs_root
def test_nothing_is_asked_again_while_nothing_happens() -> None:
    """The second look answers from the first."""

    async def body() -> None:
        async with watching() as watched:
            await watched.look()
            found = await watched.addresses.present()
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            assert await watched.addresses.present() == found
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    apart(body)


@needs_root
def test_links_that_come_and_go_take_their_addresses_along() -> None:
    """An interface made anew, renamed and removed."""

    async def body() -> None:
        async with watching() as watched:
            await watched.look()
            ip("link", "add", "w0", "type", "veth", "peer", "name", "w1")
            ip("address", "add", "198.51.100.1/32", "dev", "w0")
            await watched.until({("198.51.100.1", "w0")}, "198.51.100.")
            ip("link", "set", "w0", "name", "w2")
            await watched.until({("198.51.100.1", "w2")}, "198.51.100.")
            ip("link", "del", "w2")
            await watched.until(set(), "198.51.100.")

    apart(body)


@needs_root
def test_exactly_one_address_is_removed() -> None:
    """Not its namesake on another interface, with another prefix or of the other family."""

    async def body() -> None:
        others = ("192.0.2.1/24 dev v0", "192.0.2.1/32 dev v1", "192.0.2.11/32 dev v0")
        for words in ("192.0.2.1/32 dev v0", *others, "2001:db8::99/64 dev v0"):
            ip("address", "add", *words.split())
        async with watching() as watched:
            before = await watched.look()
            assert (await watched.addresses.remove(VIP6)).ok
            assert await watched.look() == before - {("2001:db8::99", "v0")}
            assert (await watched.addresses.remove(VIP)).ok
            assert await watched.look() == before - {("2001:db8::99", "v0")}, "its namesakes"
            again = await watched.addresses.remove(VIP)
            assert again.ok
            assert again.detail == "192.0.2.1/32 dev v0 is not here"
            elsewhere = Vip(address="192.0.2.1", prefix=32, interface="gone0")
            assert (await watched.addresses.remove(elsewhere)).ok

    apart(body)


@needs_root
def test_what_sentinel_removes_is_nobody_elses_deed() -> None:
    """Though another process had added it; what another such process removes is told."""

    async def body() -> None:
        address, there = "198.51.100.1", {("198.51.100.1", "v0")}
        vip = Vip(address=address, prefix=32, interface="v0")
        async with watching() as watched:
            await watched.look()
            for _ in range(2):
                ip("address", "add", f"{address}/32", "dev", "v0")
                await watched.until(there, address)
                assert (await watched.addresses.remove(vip)).ok
                await watched.until(set(), address)
            assert watched.removals == []
            ip("address", "add", f"{address}/32", "dev", "v0")
            await watched.until(there, address)
            ip("address", "del", f"{address}/32", "dev", "v0")
            await watched.until(set(), address)
            assert [removal.address for removal in watched.removals] == [address]

    apart(body)


@needs_root
def test_an_address_that_would_take_others_along_stays() -> None:
    """A primary one has secondaries, which may be this node's own; promoted, they survive it."""

    async def body() -> None:
        primary = Vip(address="198.51.100.1", prefix=24, interface="v0")
        ip("address", "add", "198.51.100.1/24", "dev", "v0")
        ip("address", "add", "198.51.100.2/24", "dev", "v0")
        async with watching() as watched:
            refused = await watched.addresses.remove(primary)
            assert not refused.ok
            assert refused.detail == "198.51.100.1/24 dev v0: 198.51.100.2/24 would go with it"
            promote_secondaries()
            assert (await watched.addresses.remove(primary)).ok
            await watched.until({("198.51.100.2", "v0")}, "198.51.100.")

    apart(body)


@needs_root
def test_a_node_that_may_not_remove_it_says_so() -> None:
    """Without CAP_NET_ADMIN the kernel refuses, and the reason is told."""
    code = (
        "import asyncio\n"
        "from sentinel.drivers.addresses import Addresses\n"
        "from sentinel.vrrp import Vip\n"
        "vip = Vip(address='127.0.0.1', prefix=8, interface='lo')\n"
        "print(asyncio.run(Addresses(print, print).remove(vip)).detail)"
    )
    user = ("setpriv", "--reuid", "65534", "--clear-groups", "--inh-caps=-all")
    argv = ("unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *user)
    done = subprocess.run(
        (*argv, sys.executable, "-c", code), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "127.0.0.1/8 dev lo: Operation not permitted\n", done.stderr


async def test_a_kernel_that_cannot_be_asked_removes_nothing() -> None:
    """No descriptor is left for a socket: a refusal in words, and no address taken for gone."""
    watched = Addresses(lambda: None, lambda _: None)
    await local()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        assert await watched.present() is None
        outcome = await watched.remove(VIP)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        watched.close()
    assert not outcome.ok
    assert outcome.detail == "192.0.2.1/32 dev v0: Too many open files"


def promote_secondaries() -> None:
    """Let a secondary address take the place of a primary one that is removed."""
    Path("/proc/sys/net/ipv4/conf/v0/promote_secondaries").write_text("1\n")
