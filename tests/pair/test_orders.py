"""An administrator moves the VIP to the other node, by sentinel's orders or by systemctl's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from lab.image import PROJECT
from pair.setups import on_every_pair
from system.shipped import SENTINEL, VIP

if TYPE_CHECKING:
    from pair.loadbalancers import Pair
    from system.loadbalancer import LoadBalancer

pytestmark = pytest.mark.lab

#: What sentinel does when it mends; nothing of it is wanted while an administrator is at work.
MENDING: Final = {"haproxy.restarted", "haproxy.failed", "keepalived.stopped", "keepalived.started"}
#: What systemd/haproxy.service.d/hand-over.conf says, without its section.
HAND_OVER: Final = (
    (PROJECT / "systemd/haproxy.service.d/hand-over.conf").read_text().partition("[Service]\n")[2]
)
#: A request that is under way at the very moment of the move is reset by the other node.
UNDER_WAY: Final = 1


def page(balancer: LoadBalancer) -> str:
    """Return what ``sentinel status`` shows to people."""
    return balancer.node.run(SENTINEL, "status", check=False).stdout


@on_every_pair
def test_stepdown_and_resume(pair: Pair) -> None:
    """The VIP goes to the backup and comes back; no request fails, no restart ends it."""
    master, backup = pair.both
    pair.supervise()

    with pair.asked("stepdown") as client:
        done = pair.order(master, "stepdown", "--reason", "a new kernel")
        assert (done.returncode, done.stderr) == (0, "")
        assert f"{VIP} is served by another node, " in done.stdout
        assert done.stdout.endswith(" ms after the order\n")
        pair.wait_holder(backup)
        client.wait_content()
        assert len(client.failed) <= UNDER_WAY
    pair.wait_claims("BACKUP", "MASTER")
    assert "stepped down by root, until sentinel resume: a new kernel" in page(master)
    assert "VI_1 on eth0: BACKUP (claimed" in page(master)
    assert f"VIP not here: {VIP}" in page(master)
    assert f"VIP here: {VIP}" in page(backup)
    assert master.status()["lowered"] == 253

    master.node.run("systemctl", "restart", "sentinel")
    master.wait_overall("degraded")
    assert master.status()["intent"]["stepped_down"]
    assert pair.holders() == (backup,)

    with pair.asked("resume after a stepdown") as client:
        done = pair.order(master, "resume")
        assert (done.returncode, done.stdout) == (0, "sentinel goes on as configured\n")
        pair.wait_holder(master)
        client.wait_content()
        assert len(client.failed) <= UNDER_WAY
    pair.wait_good()
    assert "asked" not in page(master)
    assert master.keepalived_states() == ["BACKUP", "MASTER"]
    assert backup.keepalived_states() == ["MASTER", "BACKUP"]


def test_a_restart_while_nobody_takes_over(pair: Pair) -> None:
    """A sentinel that starts stepped down leaves keepalived what it was told: the VIP stays."""
    pair.supervise()
    pair.backup.node.run("systemctl", "stop", "keepalived")
    assert pair.order(pair.master, "stepdown", "--wait", "100ms").returncode == 1

    with pair.asked("sentinel restarted while stepped down alone") as client:
        pair.master.node.run("systemctl", "restart", "sentinel")
        pair.master.wait_overall("degraded")
        client.wait_content()
        assert len(client.failed) <= UNDER_WAY

    assert pair.master.keepalived_states() == []
    pair.backup.node.run("systemctl", "start", "keepalived")
    pair.wait_holder(pair.backup)
    assert pair.order(pair.master, "resume").returncode == 0
    pair.wait_good()


def test_stepdown_for_a_time(pair: Pair) -> None:
    """It ends by itself, and the VIP comes back without an order."""
    pair.supervise()

    with pair.asked("stepdown --for 2s, to its end"):
        done = pair.order(pair.master, "stepdown", "--for", "2s")
        assert done.returncode == 0, done.stderr
        assert 0 < pair.master.status()["intent"]["ends_in_ms"] < 2000
        pair.wait_holder(pair.master)

    resumed = pair.master.wait_event("sentinel.resumed")
    assert resumed["reason"] == "its time is over"
    pair.wait_good()


def test_stepdown_of_the_backup(pair: Pair) -> None:
    """It has nothing to hand over, and takes nothing until it is resumed."""
    pair.supervise()

    done = pair.order(pair.backup, "stepdown")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "this node holds no VIP, and takes none until sentinel resume\n"
    assert pair.holders() == (pair.master,)

    assert pair.order(pair.backup, "resume").returncode == 0
    pair.wait_good()
    assert pair.master.keepalived_states() == []


def test_nobody_takes_over(pair: Pair) -> None:
    """Alone, the node keeps the VIP and serves; the order says so, and stands."""
    pair.supervise()
    pair.backup.node.run("systemctl", "stop", "keepalived")

    with pair.asked("stepdown without another node") as client:
        done = pair.order(pair.master, "stepdown", "--wait", "1s")
        client.wait_content()
        assert len(client.failed) <= UNDER_WAY

    assert (done.returncode, done.stdout) == (1, "")
    assert f"{VIP} is still here: is another node there to take it?" in done.stderr
    assert pair.holders() == (pair.master,)
    pair.backup.node.run("systemctl", "start", "keepalived")
    pair.wait_holder(pair.backup)
    assert pair.order(pair.master, "resume").returncode == 0
    pair.wait_good()


def test_maintenance_with_pause_and_drain(pair: Pair) -> None:
    """The VIP is handed over; then HAProxy may be stopped, killed and started as one likes."""
    master, backup = pair.both
    pair.supervise()

    with pair.asked("pause --drain, HAProxy stopped, killed and started, resume") as client:
        done = pair.order(master, "pause", "--drain", "--reason", "new haproxy")
        assert (done.returncode, done.stderr) == (0, "")
        assert f"{VIP} is served by another node, " in done.stdout
        pair.wait_holder(backup)
        assert "paused and stepped down by root, until sentinel resume: new haproxy" in page(master)

        master.node.run("systemctl", "stop", "haproxy")
        master.wait_phase("MAINT")
        master.node.run("systemctl", "start", "haproxy")
        master.wait_phase("UP")
        master.drop_in("haproxy", "Restart=no")
        master.signal_haproxy("KILL")
        master.wait_phase("MAINT")
        assert "sentinel is paused by root: new haproxy" in master.status()["serving_reason"]
        master.node.run("systemctl", "start", "haproxy")
        master.wait_phase("UP")
        assert pair.holders() == (backup,)

        assert pair.order(master, "resume").returncode == 0
        pair.wait_holder(master)
        client.wait_content()
        assert len(client.failed) <= 2 * UNDER_WAY  # there, and back
    pair.wait_good()
    assert not MENDING & set(master.names())
    assert backup.keepalived_states() == ["MASTER", "BACKUP"]


def test_haproxy_is_stopped_after_a_hand_over(pair: Pair) -> None:
    """With hand-over.conf ``systemctl restart haproxy`` waits for the backup: no request fails."""
    master, backup = pair.both
    for balancer in pair.both:
        balancer.drop_in("haproxy", HAND_OVER)
    pair.supervise()

    with pair.asked("systemctl restart haproxy, with hand-over.conf") as client:
        master.node.run("systemctl", "restart", "haproxy", timeout_s=30.0)
        assert pair.holders() == (backup,)
        pair.wait_holder(master)
        client.wait_content()
        assert len(client.failed) <= 2 * UNDER_WAY

    pair.wait_good()
    assert master.wait_event("sentinel.resumed")["reason"] == "HAProxy has been started and serves"
    assert not MENDING & set(master.names())


def test_package_upgrade(pair: Pair) -> None:
    """HAProxy is stopped, units are read again, it is started: the VIP moves and returns."""
    pair.supervise()

    with pair.asked("systemctl stop haproxy, daemon-reload, start"):
        pair.master.node.run("systemctl", "stop", "haproxy")
        pair.wait_holder(pair.backup)
        pair.master.wait_phase("MAINT")
        pair.master.node.run("systemctl", "daemon-reload")
        pair.master.node.run("systemctl", "start", "haproxy")
        pair.wait_holder(pair.master)

    pair.wait_good()
    assert not MENDING & set(pair.master.names())
    assert pair.backup.keepalived_states() == ["MASTER", "BACKUP"]
