"""What sentinel needs is in the way: a full disk, a service manager that does not answer."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pytest
from haproxies import wait_until
from lab.traces import init_pid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from system.loadbalancer import LoadBalancer

    Hanging = Callable[[LoadBalancer], AbstractContextManager[None]]

pytestmark = pytest.mark.lab

#: systemd's own restart comes so late that it cannot be who has mended HAProxy.
LATE: Final = "RestartSec=600"
#: Says nothing for as long as /run/hang is there.
SYSTEMCTL: Final = """\
#!/bin/sh
[ -e /run/hang ] && exec sleep 1000
exec /usr/bin/systemctl "$@"
"""
SMALL_DISK: Final = """\
systemctl stop keepalived
mount -t tmpfs -o size=48k,mode=755 tmpfs /run/sentinel
systemd-tmpfiles --create --prefix=/run/sentinel
systemctl start keepalived
"""


def test_a_full_disk(balancer: LoadBalancer) -> None:
    """A dead or hung HAProxy is told even so; what cannot be stored is in status until it can."""
    balancer.node.run("sh", "-c", SMALL_DISK)
    balancer.supervise()
    balancer.node.run("sh", "-c", "cat /dev/zero >/run/sentinel/full", check=False)
    before = balancer.haproxy_pids()

    balancer.signal_haproxy("STOP")
    balancer.wait_lease("FAIL")
    assert (balancer.track(), balancer.hook()) == ("1", 1)
    balancer.wait_mended(1)
    assert not before & balancer.haproxy_pids()
    assert (balancer.lease(), balancer.track(), balancer.hook()) == ("OK", "0", 0)
    assert any("No space left" in error for error in balancer.status()["errors"])

    balancer.node.run("rm", "/run/sentinel/full")
    wait_until(lambda: balancer.status()["errors"] == [], "all is stored again")
    balancer.assert_good()


@contextmanager
def hanging_systemctl(balancer: LoadBalancer) -> Iterator[None]:
    """Let systemctl hang for the block; the one that sentinel finds first in its PATH."""
    balancer.node.run("touch", "/run/hang")
    yield
    balancer.node.run("rm", "/run/hang")


@contextmanager
def hanging_systemd(balancer: LoadBalancer) -> Iterator[None]:
    """Stop the node's process 1 for the block."""
    pid = init_pid(balancer.node.name)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def silence(balancer: LoadBalancer) -> str:
    """Return what status says of a service manager that has not answered, empty when it has."""
    service = balancer.status()["haproxy"]["service"]
    return "" if service is None or service["known"] else str(service["detail"])


@pytest.mark.parametrize("hanging", [hanging_systemctl, hanging_systemd])
def test_a_service_manager_that_hangs(balancer: LoadBalancer, hanging: Hanging) -> None:
    """The node yields at once, sentinel goes on, and HAProxy is mended when it can be."""
    balancer.drop_in("haproxy", LATE)
    path = "/run/test-bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    balancer.node.write("/run/test-bin/systemctl", SYSTEMCTL, 0o755)
    balancer.drop_in("sentinel", f"Environment=PATH={path}")
    balancer.supervise()

    with hanging(balancer):
        balancer.signal_haproxy("KILL")
        balancer.wait_lease("FAIL")
        assert balancer.hook() == 1
        wait_until(lambda: silence(balancer), "its silence is seen")
        status = balancer.status()
        assert (status["phase"], status["restarts"]["used"]) == ("DEAD", 0)
        assert "killed after 2 s" in silence(balancer)
        lease = balancer.run_path("lease")
        written = lease.read_text()
        wait_until(lambda: lease.read_text() != written, "the lease is renewed all the same")
        assert balancer.lease() == "FAIL"

    balancer.wait_mended(1)
    balancer.assert_good()
    assert balancer.status()["restarts"]["used"] == 1
    assert balancer.node.run("pgrep", "sleep", check=False).stdout == ""
