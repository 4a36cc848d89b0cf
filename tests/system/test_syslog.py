"""The log's receiver hangs, is stopped or has gone: sentinel goes on, and counts what is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from haproxies import wait_until
from system.shipped import QUICK, SENTINEL, SENTINEL_TOML

if TYPE_CHECKING:
    from system.loadbalancer import LoadBalancer

pytestmark = pytest.mark.lab

#: Where the C library's and sentinel's /dev/log leads to under systemd.
DEV_LOG: Final = "/run/systemd/journal/dev-log"
#: More events than sentinel keeps: each SIGHUP with a wrong configuration is one.
MANY: Final = 330


def test_a_hung_rsyslogd(balancer: LoadBalancer) -> None:
    """Everything goes on while it hangs, and the events arrive when it wakes up."""
    balancer.supervise()
    balancer.node.run("systemctl", "kill", "--signal=STOP", "rsyslog")

    balancer.signal_haproxy("KILL")
    balancer.wait_mended(1)
    assert balancer.events("haproxy.died") == []

    balancer.node.run("systemctl", "kill", "--signal=CONT", "rsyslog")
    balancer.wait_event("haproxy.restarted")
    balancer.assert_good()


def test_a_stopped_rsyslogd(balancer: LoadBalancer) -> None:
    """The journal has what the file has not; after a start the file gets the next ones."""
    balancer.supervise()
    balancer.node.run("systemctl", "stop", "syslog.socket", "rsyslog")

    balancer.signal_haproxy("KILL")
    balancer.wait_mended(1)
    wait_until(lambda: "haproxy.restarted" in balancer.journal(), "the journal has it")

    balancer.node.run("systemctl", "start", "rsyslog")
    balancer.signal_haproxy("KILL")
    balancer.wait_mended(2)
    died = balancer.wait_event("haproxy.died")
    assert died["incarnation"] == 2
    balancer.assert_good()


def test_dev_log_is_missing(balancer: LoadBalancer) -> None:
    """What does not fit into the backlog is counted in status; then the log says what it lacks.

    Nobody kills HAProxy here: Debian's unit cannot start it without /dev/log.
    """
    balancer.node.run("mv", DEV_LOG, f"{DEV_LOG}.away")
    try:
        balancer.supervise()
        balancer.node.write(SENTINEL_TOML, "wrong")
        pid = balancer.status()["pid"]
        hang_up = f"for i in $(seq {MANY}); do kill -HUP {pid}; sleep 0.01; done"
        balancer.node.run("sh", "-c", hang_up, timeout_s=60.0)
        wait_until(lambda: balancer.status()["log_dropped"] > 0, "drops are counted")
        dropped = balancer.status()["log_dropped"]
        assert f"{dropped} events dropped" in balancer.node.run(SENTINEL, "status").stdout
        assert balancer.events() == []
        balancer.assert_good()
        dropped = balancer.status()["log_dropped"]
    finally:
        balancer.node.run("mv", f"{DEV_LOG}.away", DEV_LOG)

    gap = balancer.wait_event("log.dropped")
    assert gap["count"] == dropped
    assert balancer.names()[0] == "sentinel.started"
    assert balancer.names()[-1] == "log.dropped"
    balancer.node.write(SENTINEL_TOML, QUICK)
    balancer.node.run("systemctl", "reload", "sentinel")
    balancer.wait_event("sentinel.reloaded")
    balancer.assert_good()


def test_rotation(balancer: LoadBalancer) -> None:
    """After logrotate the next event is in the new file; the old file keeps what it had."""
    balancer.supervise()
    balancer.wait_event("verdict.changed")  # the last one of a start
    rotated = balancer.node.root / "var/log/sentinel.json.1"

    balancer.node.run("logrotate", "--force", "/etc/logrotate.d/sentinel")
    assert balancer.events() == []
    assert "phase.changed" in rotated.read_text()
    balancer.signal_haproxy("KILL")
    balancer.wait_mended(1)

    balancer.wait_event("haproxy.died")
    assert "sentinel.started" not in balancer.names()
