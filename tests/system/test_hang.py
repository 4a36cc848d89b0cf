"""HAProxy lives and does not answer: the node yields at once, then it is killed and replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from haproxies import wait_until
from system.boot import on_every_suite

if TYPE_CHECKING:
    from system.loadbalancer import LoadBalancer

pytestmark = pytest.mark.lab


@on_every_suite
@pytest.mark.parametrize("which", ["all", "worker"])
def test_stopped_processes(balancer: LoadBalancer, which: str) -> None:
    """A stopped HAProxy costs this node the VIP until another one serves."""
    balancer.supervise()
    before = balancer.haproxy_pids()

    with balancer.timed(f"SIGSTOP of HAProxy's processes: {which}"):
        balancer.signal_haproxy("STOP", which)
        balancer.wait_lease("FAIL")
        assert (balancer.track(), balancer.hook()) == ("1", 1)
        balancer.wait_no_vip()
        balancer.wait_mended(1)

    assert not before & balancer.haproxy_pids()
    balancer.assert_good()
    assert balancer.status()["restarts"]["used"] == 1
    assert balancer.keepalived_states() == ["FAULT", "BACKUP", "MASTER"]
    names = balancer.names()
    assert [n for n in names if n.startswith("haproxy.")] == [
        "haproxy.seen",
        "haproxy.hung",
        "haproxy.killed",
        "haproxy.died",
        "haproxy.seen",
        "haproxy.restarted",
    ]
    assert balancer.wait_event("haproxy.hung")["reason"] == "worker is stopped and does not answer"


def test_a_stopped_master_alone_serves(balancer: LoadBalancer) -> None:
    """Traffic goes on without the master, so nothing is killed; status says what is wrong."""
    balancer.supervise()

    balancer.signal_haproxy("STOP", "master")

    def told() -> bool:
        checks = {check["name"]: check for check in balancer.status()["checks"]}
        return "master" in checks["process"]["last_chk"] and "(T)" in checks["process"]["last_chk"]

    wait_until(told, "status tells of the stopped master")
    assert (balancer.lease(), balancer.hook()) == ("OK", 0)
    balancer.signal_haproxy("CONT", "master")
    balancer.wait_overall("healthy")
    balancer.assert_good()
    assert balancer.phases() == ["UP"]


def test_stopped_for_a_moment(balancer: LoadBalancer) -> None:
    """One that goes on by itself before anybody has confirmed the hang is not killed."""
    balancer.supervise('[restart]\nstuck = "10s"\n[runtime]\ntimeout = "5s"\n')
    before = balancer.haproxy_pids()

    balancer.signal_haproxy("STOP")
    wait_until(
        lambda: any(check["check_code"] == "PROCTOUT" for check in balancer.status()["checks"]),
        "the process check sees it",
    )
    balancer.signal_haproxy("CONT")

    balancer.wait_overall("healthy")
    assert balancer.haproxy_pids() == before
    assert "haproxy.killed" not in balancer.names()
