"""HAProxy dies: sentinel starts it at once, through systemd, within its budget, and says so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import pytest
from haproxies import wait_until
from system.boot import on_every_suite
from system.loadbalancer import when
from system.shipped import BUDGET, WINDOW_S, quick

if TYPE_CHECKING:
    from system.loadbalancer import LoadBalancer

pytestmark = pytest.mark.lab

#: systemd's own restart comes so late that it cannot be who has mended HAProxy.
LATE: Final = "RestartSec=600"


@on_every_suite
@pytest.mark.parametrize("which", ["all", "worker", "master"])
def test_killed_processes(balancer: LoadBalancer, which: str) -> None:
    """Whichever process is killed, there is one new HAProxy, for one restart of the budget."""
    balancer.drop_in("haproxy", LATE)
    balancer.supervise()
    before = balancer.haproxy_pids()

    with balancer.timed(f"kill -9 of HAProxy's processes: {which}"):
        balancer.signal_haproxy("KILL", which)
        balancer.wait_mended(1)

    assert not before & balancer.haproxy_pids()
    balancer.assert_good()
    assert balancer.status()["restarts"]["used"] == 1
    died = balancer.wait_event("haproxy.died")
    assert "died" in died["reason"] or "has no worker" in died["reason"]
    restarted = balancer.wait_event("haproxy.restarted")
    assert (restarted["attempt"], restarted["incarnation"]) == (1, 2)
    assert balancer.phases() == ["UP", "DEAD", "MENDING", "UP"]
    assert "keepalived.stopped" not in balancer.names()


@on_every_suite
def test_systemd_restarts_it_too(balancer: LoadBalancer) -> None:
    """As shipped, systemd restarts HAProxy after 100 ms: whoever is first, there is one HAProxy."""
    balancer.supervise()

    balancer.signal_haproxy("KILL")

    balancer.wait_mended(1)
    balancer.assert_good()
    assert balancer.status()["restarts"]["used"] <= 1


def test_events_and_lines_go_their_own_ways(balancer: LoadBalancer) -> None:
    """Events are JSON in sentinel.json; HAProxy's lines are in haproxy.log; nothing is in both."""
    balancer.supervise()
    balancer.signal_haproxy("KILL")
    balancer.wait_mended(1)
    assert balancer.answers("/?a-request-of-this-test")

    log = balancer.node.root / "var/log"
    wait_until(
        lambda: "a-request-of-this-test" in (log / "haproxy.log").read_text(), "HAProxy's line"
    )
    balancer.wait_event("haproxy.died")
    for line in (log / "sentinel.json").read_text().splitlines():
        event = json.loads(line)
        assert {"event", "level", "time", "node"} <= event.keys()
    lines = (log / "haproxy.log").read_text().splitlines()
    assert [line for line in lines if " haproxy[" not in line] == []
    assert "@cee" not in (log / "syslog").read_text()


@pytest.mark.parametrize("restart", ["Restart=always", "Restart=no"])
def test_five_crashes_in_a_row(balancer: LoadBalancer, restart: str) -> None:
    """The budget holds in every window, and neither it nor systemd's start limit is the end."""
    balancer.drop_in("haproxy", restart)
    balancer.supervise(quick(window_s=WINDOW_S))

    for crash in range(1, 6):
        balancer.signal_haproxy("KILL")
        balancer.wait_event("haproxy.died", count=crash)
        balancer.wait_phase("UP")

    balancer.wait_overall("healthy")
    balancer.wait_vip()
    balancer.assert_good()
    assert "FAILED" in balancer.phases()
    mending = [event for event in balancer.events("phase.changed") if event["to"] == "MENDING"]
    ours = [when(event) for event in mending if event["reason"].startswith("restart ")]
    assert len(ours) >= BUDGET
    for first, next_window in zip(ours, ours[BUDGET:], strict=False):
        assert next_window - first >= WINDOW_S
