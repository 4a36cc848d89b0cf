"""What happens to one node is mended there or taken over by the other; in the end all is well."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from haproxies import wait_until
from pair.setups import on_every_pair
from system.loadbalancer import when
from system.shipped import ADDRESS, HAPROXY_CFG, HOLD_S, NEIGHBOUR, QUICK, SENTINEL, VIP

if TYPE_CHECKING:
    from pair.loadbalancers import Pair
    from system.loadbalancer import LoadBalancer

pytestmark = pytest.mark.lab

PEER_PORT: Final = 8406


@on_every_pair
def test_keepalived_is_killed(pair: Pair) -> None:
    """Its VIP is on exactly one node in the end, and keepalived is back, without a person."""
    pair.supervise()

    with pair.asked("kill -9 of keepalived's whole group"):
        pair.master.kill_keepalived()
        died = pair.master.wait_event("keepalived.died")
        pair.master.wait_event("keepalived.started")
        wait_until(lambda: pair.backup.keepalived_states() == ["MASTER", "BACKUP"], "it came back")
        pair.wait_holder(pair.master)

    assert died["vips_left"] == VIP
    pair.wait_good()
    fenced = pair.master.events("vip.fenced")
    started = pair.master.wait_event("keepalived.started")
    assert all(when(event) <= when(started) for event in fenced)
    assert "keepalived.stopped" not in pair.master.names()


def test_a_broken_configuration_and_a_crash(pair: Pair) -> None:
    """The backup serves; keepalived is stopped and, HAProxy mended, started after the hold."""
    master, backup = pair.both
    pair.supervise()
    master.node.write(HAPROXY_CFG, f"nonsense\n{master.haproxy_cfg}")
    master.wait_event("configuration.invalid")
    assert pair.holders() == (master,)

    with pair.asked("configuration broken, then HAProxy killed, until it is mended"):
        master.signal_haproxy("KILL")
        pair.wait_holder(backup)
        master.wait_event("keepalived.stopped")
        wait_until(lambda: master.node.unit("keepalived")["ActiveState"] == "inactive", "stopped")
        assert master.status()["keepalived"]["stopped_by_sentinel"]
        assert pair.holders() == (backup,)
        left = why(master)[-1]
        assert left["event"] == "vip.left"
        assert left["why"].startswith("this node yields: ")
        story = [event["event"] for event in left["story"]]
        assert story.index("haproxy.died") < story.index("verdict.changed")

        master.node.write(HAPROXY_CFG, master.haproxy_cfg)
        pair.wait_holder(master)

    pair.wait_good()
    holding = [e for e in master.events("phase.changed") if e["to"] == "HOLDING"]
    started = master.wait_event("keepalived.started")
    assert when(started) - when(holding[-1]) >= HOLD_S
    assert backup.keepalived_states() == ["MASTER", "BACKUP"]


def test_power_cut(pair: Pair) -> None:
    """The backup takes over; booted again, the master takes the VIP back by itself."""
    master, backup = pair.both
    pair.supervise()

    with pair.asked("power cut of the master, and its boot"):
        master.node.power_cut()
        pair.wait_holder(backup)
        backup.wait_overall("healthy")
        master.node.power_on()
        pair.wait_holder(master)

    pair.wait_good()
    assert master.status()["restarts"]["used"] == 0
    assert backup.keepalived_states() == ["MASTER", "BACKUP"]


def test_split_brain(pair: Pair) -> None:
    """While the backup is deaf both hold the VIP, and the master names the other; then one does."""
    master, backup = pair.both
    pair.supervise()
    link = backup.node.network.ip("-o", "link", "show", "dev", "eth0")
    mac = link.partition("link/ether ")[2].split()[0]

    with pair.asked("adverts lost on their way to the backup, and heard again"):
        pair.switch.keep_multicast(backup.node.network, kept=True)
        wait_until(lambda: pair.holders() == pair.both, "both have the VIP")
        down = master.wait_event("check.down")
        assert (down["check"], down["check_code"]) == ("rivals", "PROCERR")
        assert down["level"] == "warning"
        assert mac in down["last_chk"]
        wait_until(lambda: rivals(master).count(mac) == 2, "it is heard and answers for the VIP")
        assert f"another MASTER speaks from {NEIGHBOUR}, priority 250" in rivals(master)
        assert f"{VIP} is also held by {mac} (ARP)" in rivals(master)
        assert master.status()["overall"] == "degraded"

        pair.switch.keep_multicast(backup.node.network, kept=False)
        pair.wait_holder(master)
        up = master.wait_event("check.up")
        assert up["check"] == "rivals"

    pair.wait_good()
    assert master.keepalived_states() == []
    assert backup.keepalived_states() == ["MASTER", "BACKUP"]


def why(balancer: LoadBalancer) -> list[dict[str, Any]]:
    """Return what a node tells of the moves of its VIP."""
    told: list[dict[str, Any]] = json.loads(balancer.node.run(SENTINEL, "why", "--json").stdout)
    return told


def rivals(balancer: LoadBalancer) -> str:
    """Return what status says of the check for rivals."""
    (check,) = (check for check in balancer.status()["checks"] if check["name"] == "rivals")
    assert check["state"] == "DOWN"
    return str(check["last_chk"])


def test_each_asks_the_other(pair: Pair) -> None:
    """With [peer] on both nodes each status tells how the other one is; silence is a failure."""
    master, backup = pair.both
    pair.supervise(peer_toml(ADDRESS, NEIGHBOUR), peer_toml(NEIGHBOUR, ADDRESS))

    assert_asked(master, backup)
    assert_asked(backup, master)

    backup.node.run("systemctl", "stop", "sentinel")
    down = master.wait_event("check.down")
    assert (down["check"], down["check_code"]) == ("peer", "L4CON")
    assert pair.holders() == (master,)
    backup.node.run("systemctl", "start", "sentinel")
    master.wait_event("check.up")
    pair.wait_good()


def assert_asked(balancer: LoadBalancer, other: LoadBalancer) -> None:
    """Status tells what the other node says of itself; it may have been troubled when asked."""
    wait_until(lambda: balancer.status()["peer"]["overall"] == "healthy", "the other is healthy")
    peer = balancer.status()["peer"]
    assert (peer["node"], peer["same_node"]) == (other.node.hostname, False)
    assert (peer["serving"], peer["servers_up"], peer["servers_total"]) == (True, 2, 2)


def peer_toml(own: str, other: str) -> str:
    """Return a configuration that answers on *own* and asks *other*."""
    return f'{QUICK}[peer]\nlisten = "{own}:{PEER_PORT}"\nurl = "http://{other}:{PEER_PORT}/"\n'
