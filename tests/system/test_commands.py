"""HAProxy is started by plain commands, /etc/init.d/haproxy start|stop|restart, as of old."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from system.shipped import QUICK, SENTINEL, SENTINEL_TOML

if TYPE_CHECKING:
    from system.loadbalancer import LoadBalancer

pytestmark = pytest.mark.lab

INIT: Final = "/run/init-haproxy"
#: Debian's init script as it is without systemd: with it, it would only call systemctl.
INIT_SCRIPT: Final = "#!/bin/sh\nSYSTEMCTL_SKIP_REDIRECT=1 exec /etc/init.d/haproxy $1\n"
COMMANDS: Final = """\
[haproxy]
manager = "commands"
start = ["{init}", "start"]
stop = ["{init}", "stop"]
restart = ["{init}", "restart"]
"""


@pytest.mark.parametrize("name", ["KILL", "STOP"])
def test_debians_script_under_systemd(balancer: LoadBalancer, name: str) -> None:
    """The script hands all to systemctl, from within sentinel's sandbox as well."""
    balancer.supervise(QUICK + COMMANDS.format(init="/etc/init.d/haproxy"))
    before = balancer.haproxy_pids()

    balancer.signal_haproxy(name)

    balancer.wait_mended(1)
    assert not before & balancer.haproxy_pids()
    balancer.assert_good()


@pytest.mark.parametrize("name", ["KILL", "STOP"])
def test_debians_script_by_itself(balancer: LoadBalancer, name: str) -> None:
    """Without a service manager, crash and hang are mended all the same; one HAProxy runs."""
    balancer.node.run("systemctl", "stop", "haproxy")
    balancer.node.write(INIT, INIT_SCRIPT, 0o755)
    balancer.node.write(SENTINEL_TOML, QUICK + COMMANDS.format(init=INIT))
    balancer.node.run(INIT, "start")
    balancer.start("sentinel", SENTINEL, "run")
    balancer.wait_overall("healthy")
    before = balancer.haproxy_pids()

    with balancer.timed(f"SIG{name} of a HAProxy that is run by an init script"):
        balancer.signal_haproxy(name)
        balancer.wait_mended(1)

    haproxy = balancer.status()["haproxy"]
    pids = {pid for pid in (haproxy["master_pid"], haproxy["worker_pid"]) if pid}
    assert balancer.haproxy_pids() == pids
    assert not before & pids
    assert balancer.listener_pids() == {haproxy["worker_pid"]}
    assert balancer.status()["restarts"]["used"] == 1
    assert balancer.node.unit("haproxy")["ActiveState"] == "inactive"
