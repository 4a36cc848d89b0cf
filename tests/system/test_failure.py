"""HAProxy cannot be brought back: keepalived is stopped, and started again when it is mended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from haproxies import wait_until
from system.boot import on_every_suite
from system.loadbalancer import when
from system.shipped import BUDGET, HAPROXY_CFG, HOLD_S, SENTINEL, WINDOW_S, haproxy_cfg, quick

if TYPE_CHECKING:
    from system.loadbalancer import LoadBalancer

pytestmark = pytest.mark.lab

BROKEN: Final = f"nonsense\n{haproxy_cfg()}"
#: Holds a port that HAProxy wants, without SO_REUSEPORT.
OCCUPANT: Final = """
import socket, time
with socket.create_server(("127.0.0.1", 9000)):
    time.sleep(600)
"""


def assert_given_up(balancer: LoadBalancer) -> None:
    """Sentinel has stopped keepalived, and says so."""
    wait_until(
        lambda: balancer.node.unit("keepalived")["ActiveState"] == "inactive", "keepalived stops"
    )
    balancer.wait_no_vip()
    assert balancer.wait_event("keepalived.stopped")["level"] == "critical"
    assert balancer.wait_event("haproxy.failed")["level"] == "critical"
    wait_until(
        lambda: balancer.status()["keepalived"]["service"]["active"] == "inactive", "it is seen"
    )
    assert balancer.status()["keepalived"]["stopped_by_sentinel"]
    assert "STOPPED BY SENTINEL" in balancer.node.run(SENTINEL, "status", check=False).stdout
    assert (balancer.lease(), balancer.track(), balancer.hook()) == ("FAIL", "1", 1)


def assert_mended_by_itself(balancer: LoadBalancer) -> None:
    """HAProxy runs and, no sooner than hold_s afterwards, keepalived as well."""
    balancer.wait_overall("healthy")
    balancer.wait_vip()
    balancer.assert_good()
    assert not balancer.status()["keepalived"]["stopped_by_sentinel"]
    started = when(balancer.wait_event("keepalived.started"))
    holding = [e for e in balancer.events("phase.changed") if e["to"] == "HOLDING"]
    assert started - when(holding[-1]) >= HOLD_S


@on_every_suite
def test_a_broken_configuration(balancer: LoadBalancer) -> None:
    """An alert while all is well; a death then means to yield at once and to restart nothing."""
    balancer.supervise()

    balancer.node.write(HAPROXY_CFG, BROKEN)
    invalid = balancer.wait_event("configuration.invalid")
    assert invalid["level"] == "error"
    status = balancer.status()
    assert (status["overall"], status["serving"]) == ("degraded", True)
    assert f"{HAPROXY_CFG}:1" in status["haproxy"]["configuration"]["error"]
    said = balancer.node.run(SENTINEL, "status", check=False)
    assert said.returncode == 1
    assert f"[{HAPROXY_CFG}:1]" in said.stdout
    assert balancer.has_vip()
    assert balancer.phases() == ["UP"]

    with balancer.timed("kill -9 with a broken configuration, until it is mended"):
        balancer.signal_haproxy("KILL")
        balancer.wait_phase("FAILED")
        assert "configuration is invalid" in balancer.status()["serving_reason"]
        assert balancer.status()["restarts"]["used"] == 0
        assert_given_up(balancer)
        assert balancer.status()["restarts"]["used"] == 0

        balancer.node.write(HAPROXY_CFG, haproxy_cfg())
        assert_mended_by_itself(balancer)
    balancer.wait_event("configuration.valid")


def test_a_taken_port(balancer: LoadBalancer) -> None:
    """The configuration is valid but no start succeeds: the budget is spent, then the VIP goes."""
    bind = "    bind 127.0.0.1:8405\n"
    balancer.supervise(quick(window_s=WINDOW_S))
    balancer.start("occupant", "python3", "-c", OCCUPANT)
    balancer.node.wait_until("ss -Hltn 'sport = :9000' | grep -q 9000")
    balancer.node.write(
        HAPROXY_CFG, haproxy_cfg().replace(bind, f"{bind}    bind 127.0.0.1:9000\n")
    )

    with balancer.timed("kill -9 with a port taken, until it is freed"):
        balancer.signal_haproxy("KILL")
        failed = balancer.wait_event("haproxy.failed")
        assert failed["reason"] == f"restart budget is spent: {BUDGET} in {WINDOW_S:g} s"
        assert_given_up(balancer)
        assert len(balancer.events("haproxy.start_failed")) == BUDGET
        assert "configuration.invalid" not in balancer.names()

        balancer.node.run("systemctl", "stop", "test-occupant")
        assert_mended_by_itself(balancer)
