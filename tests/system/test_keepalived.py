"""keepalived belongs to the administrator, except for what sentinel itself has stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from haproxies import wait_until
from system.loadbalancer import when
from system.shipped import HAPROXY_CFG, HOOK, QUICK, SENTINEL, haproxy_cfg

if TYPE_CHECKING:
    from system.loadbalancer import LoadBalancer

pytestmark = pytest.mark.lab

SOON: Final = f'{QUICK}[hook]\ncall_within = "3s"\n'


def keepalived_is(balancer: LoadBalancer) -> str:
    """Return systemd's word for keepalived."""
    return balancer.node.unit("keepalived")["ActiveState"]


def test_stopped_by_the_administrator(balancer: LoadBalancer) -> None:
    """It stays stopped through a crash of HAProxy; that the hook is not called is reported."""
    balancer.supervise(SOON)

    balancer.node.run("systemctl", "stop", "keepalived")
    balancer.signal_haproxy("KILL")
    wait_until(lambda: balancer.status()["haproxy"]["incarnation"] == 2, "HAProxy is replaced")
    balancer.wait_phase("UP")
    report = balancer.wait_event("hook.not_called")
    assert report["level"] == "error"
    assert balancer.status()["overall"] == "degraded"
    keepalived = balancer.status()["keepalived"]
    assert (keepalived["hook_silent"], keepalived["stopped_by_sentinel"]) == (True, False)
    assert keepalived_is(balancer) == "inactive"

    balancer.node.run("systemctl", "start", "keepalived")
    balancer.wait_event("hook.called_again")
    balancer.wait_overall("healthy")
    balancer.wait_vip()
    assert not {"keepalived.stopped", "keepalived.started"} & set(balancer.names())


def test_stopped_by_the_administrator_before_a_failure(balancer: LoadBalancer) -> None:
    """What sentinel did not stop it does not start either, failure or no failure."""
    balancer.supervise()
    balancer.node.run("systemctl", "stop", "keepalived")
    balancer.node.write(HAPROXY_CFG, f"nonsense\n{haproxy_cfg()}")
    balancer.wait_event("configuration.invalid")

    balancer.signal_haproxy("KILL")
    balancer.wait_phase("FAILED")
    wait_until(lambda: balancer.status()["phase_age_ms"] > 1500, "the last rung is due")
    balancer.node.write(HAPROXY_CFG, haproxy_cfg())
    balancer.wait_phase("UP")

    assert not balancer.status()["keepalived"]["stopped_by_sentinel"]
    assert not {"keepalived.stopped", "keepalived.started"} & set(balancer.names())
    assert keepalived_is(balancer) == "inactive"


def test_a_hook_that_cannot_be_executed(balancer: LoadBalancer) -> None:
    """What keepalived takes for a success, and keeps silent about, sentinel reports."""
    balancer.supervise(SOON)

    balancer.node.run("chmod", "644", HOOK)
    balancer.wait_event("hook.not_called")
    said = balancer.node.run(SENTINEL, "status", check=False)
    assert said.returncode == 1
    assert "NO LONGER CALLS THE HOOK" in said.stdout
    assert keepalived_is(balancer) == "active"

    balancer.node.run("chmod", "755", HOOK)
    balancer.wait_event("hook.called_again")
    balancer.wait_overall("healthy")
    balancer.assert_good()


def test_killed(balancer: LoadBalancer) -> None:
    """Its VIP is removed when a peer would take it, and sentinel starts it again."""
    balancer.drop_in("keepalived", "RestartSec=600")  # systemd itself would take its time
    balancer.supervise()

    balancer.kill_keepalived()

    died = balancer.wait_event("keepalived.died")
    assert "192.168.1.99" in died["vips_left"]
    fenced = balancer.wait_event("vip.fenced")
    down = balancer.wait_event("check.down")
    assert when(fenced) - when(down) > 0.25  # a peer waits for three adverts of 100 ms
    balancer.wait_event("keepalived.started")
    wait_until(lambda: balancer.keepalived_states()[-1:] == ["MASTER"], "it is master again")
    balancer.wait_overall("healthy")
    balancer.wait_vip()
    balancer.assert_good()
    assert "keepalived.stopped" not in balancer.names()


def test_killed_while_paused(balancer: LoadBalancer) -> None:
    """A paused sentinel leaves keepalived to systemd, whose start strips the VIP first."""
    balancer.supervise()
    balancer.node.run(SENTINEL, "pause", "--reason", "a test")

    balancer.kill_keepalived()

    wait_until(lambda: balancer.node.unit("keepalived")["NRestarts"] == "1", "systemd restarts it")
    wait_until(lambda: balancer.keepalived_states()[-1:] == ["MASTER"], "it is master again")
    assert not {"keepalived.started", "vip.fenced"} & set(balancer.names())
    balancer.node.run(SENTINEL, "resume")
    balancer.wait_overall("healthy")
    balancer.assert_good()
