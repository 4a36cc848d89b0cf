"""sentinel on a standard node: it needs no configuration, and stands in nobody's way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from haproxies import wait_until
from system.boot import SUITES, running_load_balancer, serve_web
from system.shipped import FRONTENDS, SENTINEL, SENTINEL_TOML

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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


def test_status_is_not_for_everybody(balancer: LoadBalancer) -> None:
    """Without the group there is a clear refusal; with it, its members may ask."""
    nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", SENTINEL, "status")
    balancer.supervise()
    refused = balancer.node.run(*nobody, check=False)
    assert (refused.returncode, refused.stdout) == (4, "")
    assert "you may not read /run/sentinel/status.sock" in refused.stderr

    balancer.node.write(SENTINEL_TOML, '[status]\ngroup = "nogroup"\n')
    balancer.node.run("systemctl", "reload", "sentinel")
    balancer.wait_event("sentinel.reloaded")
    balancer.wait_overall("healthy")
    assert "HEALTHY" in balancer.node.run(*nobody).stdout


def test_the_sandbox(balancer: LoadBalancer) -> None:
    """The running service's exposure is rated by systemd itself; the table is printed."""
    balancer.supervise()
    rated = balancer.node.run(
        "systemd-analyze", "security", "--no-pager", "sentinel.service"
    ).stdout
    print(rated)  # noqa: T201  (for whoever runs pytest -s)
    assert float(rated.rpartition(": ")[2].split()[0]) < 4.0


def test_a_shutdown_and_a_boot_make_no_alarm(image: Callable[[str], Path]) -> None:
    """A shutdown is not taken for a crash, and after a boot all is well without a restart."""
    with running_load_balancer(image(SUITES[0])) as balancer:
        balancer.reset()
        balancer.supervise()
        balancer.node.run("systemctl", "enable", "haproxy", "keepalived", "sentinel")

        balancer.node.shut_down()
        assert balancer.names()[-1] == "sentinel.stopped"
        assert {event["level"] for event in balancer.events()} <= {"debug", "info"}
        assert balancer.phases() == ["UP"]

        balancer.since_now()
        balancer.node.power_on()
        serve_web(balancer.node)
        balancer.wait_overall("healthy")
        balancer.wait_vip()
        balancer.assert_good()
        assert balancer.status()["restarts"]["used"] == 0
        assert balancer.phases() == ["UP"]
        assert balancer.keepalived_states() == ["BACKUP", "MASTER"]
