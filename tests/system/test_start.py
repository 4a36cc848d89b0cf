"""sentinel on a standard node: it needs no configuration, and stands in nobody's way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from haproxies import wait_until
from system.loadbalancer import FRONTENDS, SENTINEL

if TYPE_CHECKING:
    from system.loadbalancer import LoadBalancer

pytestmark = pytest.mark.lab


@pytest.mark.parametrize("configuration", ["", None], ids=["empty file", "no file"])
def test_no_configuration_is_needed(balancer: LoadBalancer, configuration: str | None) -> None:
    """With an empty file or none it finds HAProxy, its frontends and servers, and keepalived."""
    balancer.supervise(configuration)

    status = balancer.status()
    checks = {check["name"]: check for check in status["checks"]}
    assert checks.keys() >= FRONTENDS
    assert {check["verdict"] for check in checks.values()} == {"PASS"}
    assert [(pool["name"], pool["up"]) for pool in status["pools"]] == [("pool1", 2)]
    assert status["keepalived"]["service"]["sub"] == "running"
    assert status["errors"] == []
    balancer.assert_good()
    assert balancer.node.unit("sentinel")["ActiveState"] == "active"
    assert {event["level"] for event in balancer.events()} == {"info"}


def test_keepalived_calls_the_hook(balancer: LoadBalancer) -> None:
    """The age of keepalived's last call is in status, and stays young."""
    balancer.supervise()

    def called() -> bool:
        status = balancer.status()
        age_ms = status["keepalived"]["hook_called_age_ms"]
        return age_ms is not None and age_ms < status["uptime_ms"]

    wait_until(called, "keepalived has called since sentinel's start")
    said = balancer.node.run(SENTINEL, "status").stdout
    assert "HEALTHY  serving" in said
    assert "called the hook" in said
    assert "by sentinel's lease" in balancer.node.run(SENTINEL, "check").stdout


def test_the_sandbox(balancer: LoadBalancer) -> None:
    """The running service's exposure is rated by systemd itself; the table is printed."""
    balancer.supervise()
    rated = balancer.node.run(
        "systemd-analyze", "security", "--no-pager", "sentinel.service"
    ).stdout
    print(rated)  # noqa: T201  (for whoever runs pytest -s)
    assert float(rated.rpartition(": ")[2].split()[0]) < 4.0
