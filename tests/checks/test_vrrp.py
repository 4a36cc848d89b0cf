"""The vrrp check against a real keepalived and the kernel, in a network of the test's own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import keepaliveds
import pytest
from haproxies import DEADLINE_S
from keepaliveds import VI_1, VIP, running_keepalived
from namespaces import apart, ip, needs_root
from processes import descriptors

from sentinel import config
from sentinel.checks.vrrp import VrrpCheck
from sentinel.drivers.addresses import Addresses
from sentinel.model import Code, Observation, Verdict
from sentinel.vrrp import Claim, VrrpInstance, VrrpState, VrrpView

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = [pytest.mark.real, needs_root]


class Looker:
    """Runs a check as the supervisor does: when it is woken, and now and then."""

    def __init__(self, instances: tuple[VrrpInstance, ...], main_pid: int, fifo: str) -> None:
        self.instances = instances
        self.woken = asyncio.Event()
        self.seen: list[Observation] = []
        self.addresses = Addresses(self.woken.set, lambda _: None)
        self.check = VrrpCheck(
            config.Vrrp(fifo=fifo),
            conf=lambda: self.instances,
            present=self.addresses.present,
            main_pid=lambda: main_pid,
            on_change=self.woken.set,
        )

    async def look(self) -> Observation:
        """Look once."""
        self.woken.clear()
        self.seen.append(await self.check())
        return self.seen[-1]

    async def until(self, fits: Callable[[Observation], bool], inter_s: float = 5.0) -> Observation:
        """Look whenever woken, and every *inter_s*, until an observation *fits*."""
        deadline_s = time.monotonic() + DEADLINE_S
        while not fits(await self.look()):
            assert time.monotonic() < deadline_s, self.seen[-3:]
            try:
                async with asyncio.timeout(inter_s):
                    await self.woken.wait()
            except TimeoutError:
                continue
        return self.seen[-1]

    async def until_said(self, detail: str) -> Observation:
        """Look until exactly this is said."""
        return await self.until(lambda seen: seen.detail == detail)

    def verdicts(self) -> set[Verdict]:
        """Return all verdicts until now."""
        return {seen.verdict for seen in self.seen}


def view_of(seen: Observation) -> VrrpView:
    """Return what was seen."""
    assert isinstance(seen.view, VrrpView)
    return seen.view


def claim_of(seen: Observation) -> Claim | None:
    """Return what keepalived claims of its one instance."""
    return view_of(seen).instances[0].claim


@asynccontextmanager
async def looking(
    *instances: VrrpInstance, main_pid: int = 0, fifo: str = keepaliveds.FIFO
) -> AsyncIterator[Looker]:
    """Make a check of these instances, closed in the end with nothing left open."""
    looker = Looker(instances, main_pid, fifo)
    try:
        yield looker
    finally:
        looker.check.close()
        looker.addresses.close()


def fifo_exists() -> bool:
    """Tell whether the check has made its FIFO."""
    return Path(keepaliveds.FIFO).exists()


def pids_found_in(*place: str) -> str:
    """Return what another process finds of keepalived, in a *place* that ``unshare`` makes."""
    look = (
        "import asyncio\n"
        "from sentinel.vrrpstate.keepalived import Keepalived\n"
        "async def look(): print(Keepalived(lambda: 0, print).look().pids)\n"
        "asyncio.run(look())"
    )
    argv = (*place, sys.executable, "-c", look)
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True).stdout


MASTER = "VI_1: MASTER 150, VIP 192.0.2.1 here"


def test_a_start_of_keepalived_is_followed_without_a_false_alarm() -> None:
    """From nothing to MASTER with its VIP: heard through the FIFO, made before keepalived came."""

    async def body() -> None:
        before = descriptors()
        async with looking(VI_1) as looker:
            first = await looker.look()
            assert (first.verdict, first.detail) == (Verdict.PASS, "keepalived is not running")
            with running_keepalived(keepaliveds.conf()) as keepalived:
                seen = await looker.until_said(MASTER)
                assert view_of(seen).pids == (keepalived.pid, keepalived.vrrp_pid)
                assert view_of(seen).instances[0].present == (VIP,)
                assert (seen.verdict, seen.code) == (Verdict.PASS, Code.PROCOK)
        assert descriptors() == before

    apart(body)


def test_a_keepalived_that_has_long_been_master_is_asked() -> None:
    """No line comes through the FIFO: its dump says how things are, from a /tmp of its own."""

    async def body() -> None:
        with running_keepalived(keepaliveds.conf()) as keepalived:
            await wait_for_vip(here=True)
            async with looking(VI_1, main_pid=keepalived.pid) as looker:
                seen = await looker.until_said(MASTER)
                claim = claim_of(seen)
                assert claim is not None
                assert (claim.source, claim.state) == ("JSON", VrrpState.MASTER)
                assert len(looker.seen) == 1

    apart(body)


def test_a_lost_vip_is_told_when_keepalived_does_not_mind() -> None:
    """Of a VIP with no_track keepalived does not see that somebody deleted it."""

    async def body() -> None:
        text = keepaliveds.conf(vips="192.0.2.1 no_track")
        with running_keepalived(text):
            async with looking(VI_1) as looker:
                await looker.until_said(MASTER)
                ip("address", "del", "192.0.2.1/32", "dev", "v0")
                absent = "VI_1: MASTER (claimed), VIP 192.0.2.1 absent"
                doubted = await looker.until_said(absent)
                assert doubted.verdict is Verdict.PASS, "it may still be put back"
                failed = await looker.until(lambda seen: seen.verdict is not Verdict.PASS)
                assert (failed.verdict, failed.code) == (Verdict.FAIL, Code.L7STS)
                assert failed.detail == absent
                ip("address", "add", "192.0.2.1/32", "dev", "v0")
                await looker.until_said(MASTER)

    apart(body)


def test_a_vip_that_keepalived_puts_back_is_no_failure() -> None:
    """It goes through BACKUP to MASTER again; nothing of this lasts a second."""

    async def body() -> None:
        with running_keepalived(keepaliveds.conf()):
            async with looking(VI_1) as looker:
                await looker.until_said(MASTER)
                ip("address", "del", "192.0.2.1/32", "dev", "v0")
                await looker.until(lambda seen: not view_of(seen).instances[0].present)
                await looker.until_said(MASTER)
                assert looker.verdicts() == {Verdict.PASS}

    apart(body)


def test_a_vip_held_by_a_backup_is_told() -> None:
    """Somebody else has put it there, or it was forgotten."""

    async def body() -> None:
        with running_keepalived(keepaliveds.conf(more="preempt_delay 1000")):
            async with looking(VI_1) as looker:
                await looker.until(lambda seen: claim_of(seen) is not None)
                ip("link", "set", "v1", "down")
                await looker.until_said("VI_1: FAULT 150")
                ip("address", "add", "192.0.2.1/32", "dev", "v0")
                await looker.until(lambda seen: seen.verdict is Verdict.FAIL)
                assert looker.seen[-1].detail == "VI_1: FAULT (claimed), VIP 192.0.2.1 here"

    apart(body)


@pytest.mark.parametrize("fifo", ["/run/sentinel/vrrp.fifo", "/run/made-by-keepalived.fifo"])
def test_a_reload_is_survived(fifo: str) -> None:
    """Keepalived tells nothing of it, and makes the FIFO that it has made itself anew."""

    async def body() -> None:
        if fifo == keepaliveds.FIFO:
            os.mkfifo(fifo, 0o600)
        with running_keepalived(keepaliveds.conf(fifo=fifo)) as keepalived:
            async with looking(VI_1, fifo=fifo) as looker:
                await looker.until_said(MASTER)
                keepalived.reload(keepaliveds.conf(fifo=fifo, priority=140))
                looker.instances = (replace(VI_1, priority=140),)
                await looker.until(
                    lambda seen: seen.detail == MASTER.replace("150", "140"), inter_s=0.5
                )
                ip("link", "set", "v1", "down")
                fault = await looker.until_said("VI_1: FAULT 140")
                claim = claim_of(fault)
                assert claim is not None
                assert claim.source == "FIFO", "it hears the FIFO that is there now"
                assert Verdict.FAIL not in looker.verdicts(), looker.seen

    apart(body)


def test_a_killed_vrrp_process_is_noticed_and_its_successor_followed() -> None:
    """Its parent starts another: what the dead one claimed counts no more."""

    async def body() -> None:
        with running_keepalived(keepaliveds.conf()) as keepalived:
            async with looking(VI_1) as looker:
                await looker.until_said(MASTER)
                dead = keepalived.vrrp_pid
                os.kill(dead, signal.SIGKILL)
                await looker.until(
                    lambda seen: seen.detail == MASTER and dead not in view_of(seen).pids
                )
                assert view_of(looker.seen[-1]).pids == (keepalived.pid, keepalived.vrrp_pid)

    apart(body)


def test_vips_of_a_killed_keepalived_are_told_at_once_and_can_be_removed() -> None:
    """Kill -9 of its whole group leaves them behind, and nobody to take them away."""

    async def body() -> None:
        with running_keepalived(keepaliveds.conf()) as keepalived:
            async with looking(VI_1) as looker:
                await looker.until_said(MASTER)
                looker.woken.clear()
                keepalived.kill()
                async with asyncio.timeout(DEADLINE_S):
                    await looker.woken.wait()
                failed = await looker.until(lambda seen: not view_of(seen).pids)
                assert (failed.verdict, failed.code) == (Verdict.FAIL, Code.PROCERR)
                assert failed.detail == "keepalived is dead, VIP 192.0.2.1 still here"
                assert claim_of(failed) is None
                assert (await looker.addresses.remove(VIP)).ok
                gone = await looker.until(lambda seen: not view_of(seen).instances[0].present)
                assert gone.detail == "keepalived is dead"

    apart(body)


def test_a_killed_parent_takes_its_child_along() -> None:
    """The child gives the VIP back first: pids tell it until it has."""

    async def body() -> None:
        with running_keepalived(keepaliveds.conf()) as keepalived:
            async with looking(VI_1) as looker:
                await looker.until_said(MASTER)
                os.kill(keepalived.pid, signal.SIGKILL)
                await looker.until(lambda seen: not view_of(seen).pids)
                assert not view_of(looker.seen[-1]).instances[0].present
                assert Verdict.FAIL not in looker.verdicts(), looker.seen

    apart(body)


def test_a_stopped_vrrp_process_is_a_failure() -> None:
    """The peer hears no adverts and takes the VIP; this node has it as well."""

    async def body() -> None:
        with running_keepalived(keepaliveds.conf()) as keepalived:
            async with looking(VI_1) as looker:
                await looker.until_said(MASTER)
                child = keepalived.vrrp_pid
                os.kill(child, signal.SIGSTOP)
                await looker.until(lambda seen: seen.verdict is Verdict.FAIL, inter_s=0.2)
                assert looker.seen[-1].detail == (
                    f"keepalived's VRRP process {child} is stopped, VIP 192.0.2.1 still here"
                )
                assert looker.seen[-1].code is Code.PROCTOUT
                os.kill(child, signal.SIGCONT)
                await looker.until(lambda seen: seen.detail == MASTER, inter_s=0.2)

    apart(body)


def test_a_keepalived_without_our_fifo_is_followed_all_the_same() -> None:
    """By its dump, asked for when an address contradicts what it said last."""

    async def body() -> None:
        with running_keepalived(keepaliveds.conf(fifo="")):
            async with looking(VI_1) as looker:
                await looker.until_said(MASTER)
                ip("link", "set", "v1", "down")
                await looker.until_said("VI_1: FAULT 150")
                assert Verdict.FAIL not in looker.verdicts(), looker.seen

    apart(body)


def test_a_claim_that_cannot_be_confirmed_is_a_failure_in_the_end() -> None:
    """A parent that is stopped hands no signal on; what its last dump said was true once."""

    async def body() -> None:
        with running_keepalived(keepaliveds.conf(fifo="", vips="192.0.2.1 no_track")) as keepalived:
            async with looking(VI_1) as looker:
                await looker.until_said(MASTER)
                os.kill(keepalived.pid, signal.SIGSTOP)
                ip("address", "del", "192.0.2.1/32", "dev", "v0")
                failed = await looker.until(lambda seen: seen.verdict is Verdict.FAIL)
                assert failed.detail == "VI_1: MASTER (claimed), VIP 192.0.2.1 absent"
                os.kill(keepalived.pid, signal.SIGCONT)

    apart(body)


def test_a_node_without_keepalived_passes() -> None:
    """Nothing is configured, nothing is asked, no FIFO is made."""

    async def body() -> None:
        async with looking() as looker:
            seen = await looker.look()
            assert (seen.verdict, seen.detail) == (Verdict.PASS, "no keepalived")
            assert view_of(seen) == VrrpView()
            assert not fifo_exists()

    apart(body)


def test_a_keepalived_whose_configuration_is_elsewhere_is_a_failure() -> None:
    """Or it would be taken for a node without keepalived, and a hand-over for done."""

    async def body() -> None:
        with running_keepalived(keepaliveds.conf()):
            async with looking() as looker:
                seen = await looker.until(lambda seen: seen.verdict is Verdict.FAIL)
                assert seen.detail == (
                    "keepalived runs, but /etc/keepalived/keepalived.conf has no instance:"
                    " correct vrrp.file"
                )
                assert view_of(seen).pids

    apart(body)


def test_a_keepalived_that_does_not_run_is_a_failure_after_a_while() -> None:
    """A restart of it is not; a node that is out of the pair is."""

    async def body() -> None:
        async with looking(VI_1) as looker:
            await looker.until(lambda seen: seen.verdict is Verdict.FAIL)
            assert looker.seen[-1].detail == "keepalived is not running"

    apart(body)


def test_the_keepalived_of_another_network_is_not_ours() -> None:
    """It runs in a container, and its pidfile lies where ours would."""

    async def body() -> None:
        with running_keepalived(keepaliveds.conf()):
            assert pids_found_in("unshare", "-n") == "()\n"
            assert pids_found_in() != "()\n"

    apart(body)


def test_addresses_that_cannot_be_read_are_unknown() -> None:
    """No view is better than one that says that all VIPs are absent."""

    async def body() -> None:
        async def unknown() -> None:
            return None

        check = VrrpCheck(
            config.Vrrp(fifo=keepaliveds.FIFO),
            conf=lambda: (VI_1,),
            present=unknown,
            main_pid=lambda: 0,
            on_change=lambda: None,
        )
        seen = await check()
        check.close()
        assert (seen.verdict, seen.view) == (Verdict.UNKNOWN, None)
        assert seen.detail == "this node's addresses cannot be read"

    apart(body)


async def wait_for_vip(*, here: bool) -> None:
    """Wait until the VIP is on this node, or is not."""
    addresses = Addresses(lambda: None, lambda _: None)
    try:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                found = await addresses.present()
                assert found is not None
                if ((VIP.address, VIP.interface) in found) is here:
                    return
                await asyncio.sleep(0.01)
    finally:
        addresses.close()
