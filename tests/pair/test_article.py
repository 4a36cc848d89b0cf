"""The scenario that chk_haproxy.sh comes from: keepalived is stopped on the master, and started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from haproxies import wait_until
from pair.loadbalancers import moves
from pair.setups import on_every_pair
from system.shipped import VIP

if TYPE_CHECKING:
    from pair.loadbalancers import Pair

pytestmark = pytest.mark.lab

PLACE: Final = f"{VIP}/32 dev eth0"
#: Each as it comes: keepalived tells its state and changes the addresses at the same moment.
ARRIVED: Final = {("vrrp.changed", "MASTER"), ("vip.arrived", PLACE)}
LEFT: Final = {("vrrp.changed", "BACKUP"), ("vip.left", PLACE)}


@on_every_pair
def test_keepalived_is_stopped_and_started_on_the_master(pair: Pair) -> None:
    """The backup holds the VIP and serves, the master regains it, and both nodes' logs show it."""
    master, backup = pair.both
    pair.supervise()
    pair.since_now()

    with pair.asked("systemctl stop keepalived, and start"):
        master.node.run("systemctl", "stop", "keepalived")
        pair.wait_holder(backup)
        wait_until(lambda: set(moves(backup)) == ARRIVED, "the backup logs that it has the VIP")
        wait_until(lambda: ("vip.left", PLACE) in moves(master), "the master logs that it has not")

        master.node.run("systemctl", "start", "keepalived")
        pair.wait_holder(master)

    pair.wait_good()
    wait_until(lambda: set(moves(backup)[2:]) == LEFT, "the backup logs that it has lost it")
    wait_until(lambda: set(moves(master)) >= ARRIVED, "the master logs that it has it again")
    assert backup.keepalived_states() == ["MASTER", "BACKUP"]
    assert master.keepalived_states()[-1] == "MASTER"
    for balancer in pair.both:
        assert "(VI_1) Entering MASTER STATE" in balancer.journal()
        assert "vip.arrived" in balancer.journal()
        assert "vip.left" in balancer.journal()
        assert not [name for name in balancer.names() if name.startswith("keepalived.sto")]
