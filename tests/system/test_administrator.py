"""What a person does to HAProxy is obeyed: nothing is restarted against it, nothing is alarmed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from haproxies import wait_until
from system.boot import on_every_suite

if TYPE_CHECKING:
    from system.loadbalancer import LoadBalancer

pytestmark = pytest.mark.lab

#: The supervisor looks at a stopped unit every 2 s: so long for two looks and a bit.
SEVERAL_LOOKS_MS: Final = 5000


def assert_nothing_was_mended(balancer: LoadBalancer) -> None:
    """Sentinel spent nothing and did nothing to keepalived."""
    assert balancer.status()["restarts"]["used"] == 0
    assert not {"haproxy.failed", "haproxy.restarted", "keepalived.stopped"} & set(balancer.names())


@on_every_suite
def test_stop_and_start(balancer: LoadBalancer) -> None:
    """A stop hands the VIP over and is left alone, however long; a start takes it back."""
    balancer.supervise()

    balancer.node.run("systemctl", "stop", "haproxy")
    balancer.wait_phase("MAINT")
    wait_until(lambda: balancer.status()["phase_age_ms"] > SEVERAL_LOOKS_MS, "several looks")
    status = balancer.status()
    assert (status["phase"], status["overall"]) == ("MAINT", "failed")
    assert status["serving_reason"] == "stopped by an administrator: unit was stopped"
    assert (balancer.lease(), balancer.track(), balancer.hook()) == ("FAIL", "1", 1)
    assert not balancer.has_vip()
    assert balancer.haproxy_pids() == set()
    assert balancer.wait_event("haproxy.stopped")["level"] == "warning"

    balancer.node.run("systemctl", "start", "haproxy")
    balancer.wait_mended(1)
    balancer.assert_good()
    assert_nothing_was_mended(balancer)
    assert balancer.phases() == ["UP", "DEAD", "MAINT", "MENDING", "UP"]


@on_every_suite
def test_mask(balancer: LoadBalancer) -> None:
    """A masked unit is not touched, and status says that it is masked."""
    balancer.supervise()

    balancer.node.run("systemctl", "mask", "--now", "haproxy")
    balancer.wait_phase("MAINT")
    wait_until(lambda: "masked" in balancer.status()["serving_reason"], "the mask is seen")
    balancer.node.run("systemctl", "unmask", "haproxy")
    balancer.node.run("systemctl", "start", "haproxy")

    balancer.wait_mended(1)
    balancer.assert_good()
    assert_nothing_was_mended(balancer)


@on_every_suite
def test_restart_by_hand(balancer: LoadBalancer) -> None:
    """A restart by hand is another incarnation, and none of sentinel's doing."""
    balancer.supervise()

    with balancer.timed("systemctl restart haproxy"):
        balancer.node.run("systemctl", "restart", "haproxy")
        balancer.wait_mended(1)

    balancer.assert_good()
    assert_nothing_was_mended(balancer)
    assert balancer.status()["haproxy"]["incarnation"] == 2
    balancer.wait_event("haproxy.recovered")


@on_every_suite
def test_reload(balancer: LoadBalancer) -> None:
    """A reload, by systemctl or by signal, never lets go of the VIP for a moment."""
    balancer.supervise()

    with balancer.lease_words() as words:
        balancer.node.run("systemctl", "reload", "haproxy")
        balancer.wait_mended(1)
        incarnation = balancer.status()["haproxy"]["incarnation"]
        balancer.signal_haproxy("USR2", "master")
        balancer.wait_mended(incarnation)

    assert words == {"OK"}
    assert balancer.keepalived_states() == []
    assert balancer.phases() == ["UP"]
    assert len(balancer.events("haproxy.reloaded")) == 2
    wait_until(lambda: len(balancer.haproxy_pids()) == 2, "the old worker has gone")
    balancer.assert_good()
    assert_nothing_was_mended(balancer)


@on_every_suite
def test_package_upgrade(balancer: LoadBalancer) -> None:
    """A package's scripts stop HAProxy, let systemd read its units again, and start it."""
    balancer.supervise()

    balancer.node.run("systemctl", "stop", "haproxy")
    balancer.node.run("systemctl", "daemon-reload")
    balancer.node.run("systemctl", "start", "haproxy")

    balancer.wait_mended(1)
    balancer.assert_good()
    assert_nothing_was_mended(balancer)


def test_stop_while_sentinel_restarts(balancer: LoadBalancer) -> None:
    """A stop that comes between sentinel's order and HAProxy's start is the last word."""
    balancer.drop_in("haproxy", "RestartSec=600\nExecStartPre=/bin/sleep 2")
    balancer.supervise()
    balancer.signal_haproxy("KILL")
    balancer.wait_phase("MENDING")
    balancer.node.wait_until("systemctl show haproxy -p SubState | grep -q start-pre")

    balancer.node.run("systemctl", "stop", "haproxy")

    balancer.wait_phase("MAINT")
    wait_until(lambda: balancer.status()["phase_age_ms"] > SEVERAL_LOOKS_MS, "several looks")
    assert balancer.phase() == "MAINT"
    assert balancer.haproxy_pids() == set()
    assert balancer.phases() == ["UP", "DEAD", "MENDING", "DEAD", "MAINT"]
    balancer.node.run("systemctl", "start", "haproxy")
    balancer.wait_mended(1)
    balancer.assert_good()
