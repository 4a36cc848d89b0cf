"""sentinel itself is stopped, killed, hung, reloaded and started twice: nobody else suffers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from haproxies import wait_until
from system.shipped import HAPROXY_CFG, QUICK, SENTINEL, SENTINEL_TOML, haproxy_cfg, quick

if TYPE_CHECKING:
    from system.loadbalancer import LoadBalancer

pytestmark = pytest.mark.lab

SHORT_LEASE: Final = f'{QUICK}[hook]\nlease = "1s"\n'
#: systemd's own restart comes so late that it cannot be who has mended HAProxy.
LATE: Final = "RestartSec=600"


def lease_is_over(balancer: LoadBalancer) -> bool:
    """Tell whether sentinel's lease no longer counts."""
    said = balancer.node.run(SENTINEL, "check", check=False).stdout
    return "there is no valid lease" in said


def kill_sentinel(balancer: LoadBalancer) -> None:
    """SIGKILL sentinel and wait until systemd has brought it back."""
    before = balancer.node.unit("sentinel")["NRestarts"]
    balancer.signal_sentinel("KILL")
    wait_until(lambda: balancer.node.unit("sentinel")["NRestarts"] != before, "systemd restarts it")
    wait_until(lambda: balancer.phase() not in {"", "LEARNING"}, "it knows where it stands")


def test_stop(balancer: LoadBalancer) -> None:
    """HAProxy, keepalived and the VIP stay; when the lease is over the hook looks for itself."""
    balancer.supervise(SHORT_LEASE)
    haproxy, keepalived = balancer.haproxy_pids(), balancer.node.unit("keepalived")["MainPID"]

    balancer.node.run("systemctl", "stop", "sentinel")
    balancer.wait_event("sentinel.stopped")
    wait_until(lambda: lease_is_over(balancer), "the lease is over")

    assert balancer.hook() == 0
    assert balancer.track() == "0"
    said = balancer.node.run(SENTINEL, "status", check=False)
    assert (said.returncode, said.stdout) == (3, "")
    assert "sentinel is not running" in said.stderr
    assert balancer.haproxy_pids() == haproxy
    assert balancer.node.unit("keepalived")["MainPID"] == keepalived
    assert balancer.has_vip()
    assert balancer.keepalived_states() == []
    balancer.signal_haproxy("STOP")
    assert balancer.hook() == 1


def test_killed_while_all_is_well(balancer: LoadBalancer) -> None:
    """It is back in a moment, knows what it has spent of its budget, and nobody noticed."""
    balancer.drop_in("haproxy", LATE)
    balancer.supervise()
    balancer.signal_haproxy("KILL")
    balancer.wait_mended(1)
    states = balancer.keepalived_states()

    with balancer.lease_words() as words:
        kill_sentinel(balancer)
        balancer.wait_overall("healthy")

    assert balancer.status()["restarts"]["used"] == 1
    assert "FAIL" not in words
    assert balancer.keepalived_states() == states
    balancer.assert_good()


def test_killed_while_haproxy_is_down(balancer: LoadBalancer) -> None:
    """Whoever starts without a HAProxy that nobody has stopped starts one."""
    balancer.drop_in("haproxy", LATE)
    balancer.supervise()

    pid = balancer.node.unit("sentinel")["MainPID"]
    balancer.node.run("sh", "-c", f"kill -9 {pid}; killall -9 haproxy")

    balancer.wait_overall("healthy")
    balancer.wait_vip()
    balancer.assert_good()
    assert balancer.status()["restarts"]["used"] == 1


def test_killed_while_mending(balancer: LoadBalancer) -> None:
    """The start that is under way goes on, and is not followed by a second one."""
    balancer.drop_in("haproxy", f"{LATE}\nExecStartPre=/bin/sleep 1.5")
    balancer.supervise()

    balancer.signal_haproxy("KILL")
    balancer.wait_phase("MENDING")
    kill_sentinel(balancer)

    balancer.wait_overall("healthy")
    balancer.wait_vip()
    balancer.assert_good()
    assert balancer.status()["restarts"]["used"] == 1


@pytest.mark.parametrize("phase", ["FAILED", "HOLDING"])
def test_killed_after_keepalived_was_stopped(balancer: LoadBalancer, phase: str) -> None:
    """It remembers that keepalived is its own to start again."""
    balancer.supervise()
    balancer.node.write(HAPROXY_CFG, f"nonsense\n{haproxy_cfg()}")
    balancer.wait_event("configuration.invalid")
    balancer.signal_haproxy("KILL")
    balancer.wait_event("keepalived.stopped")

    if phase == "HOLDING":
        balancer.node.write(HAPROXY_CFG, haproxy_cfg())
        balancer.wait_phase("HOLDING")
    kill_sentinel(balancer)
    if phase == "FAILED":
        balancer.wait_phase("FAILED")
        assert balancer.status()["keepalived"]["stopped_by_sentinel"]
        assert "configuration is invalid" in balancer.status()["serving_reason"]
        balancer.node.write(HAPROXY_CFG, haproxy_cfg())

    balancer.wait_overall("healthy")
    balancer.wait_vip()
    balancer.assert_good()
    balancer.wait_event("keepalived.started")


def test_hung(balancer: LoadBalancer) -> None:
    """Its lease runs out, the hook looks for itself, and systemd's watchdog replaces it."""
    balancer.drop_in("sentinel", "WatchdogSec=4")
    balancer.supervise(SHORT_LEASE)
    pid = balancer.status()["pid"]

    balancer.signal_sentinel("STOP")
    wait_until(lambda: lease_is_over(balancer), "the lease is over")
    assert balancer.hook() == 0

    wait_until(lambda: balancer.node.unit("sentinel")["NRestarts"] == "1", "systemd restarts it")
    balancer.wait_overall("healthy")
    assert balancer.status()["pid"] != pid
    assert "Watchdog timeout" in balancer.node.journal("sentinel")
    assert balancer.keepalived_states() == []
    balancer.assert_good()


def test_reload(balancer: LoadBalancer) -> None:
    """A good configuration is taken in place; a wrong one is refused with what is wrong in it."""
    balancer.supervise()
    pid = balancer.status()["pid"]

    with balancer.lease_words() as words:
        balancer.node.write(SENTINEL_TOML, quick(budget=1))
        balancer.node.run("systemctl", "reload", "sentinel")
        wait_until(lambda: balancer.status()["restarts"]["budget"] == 1, "the new budget")
        balancer.node.write(SENTINEL_TOML, quick().replace("budget", "budgett"))
        assert balancer.node.run("systemctl", "reload", "sentinel", check=False).returncode != 0
        assert "restart.budgett: unknown key" in balancer.node.journal("sentinel")
        assert balancer.events("sentinel.reload_refused") == []  # it was not even asked
        balancer.signal_sentinel("HUP")  # without a look at the file
        refused = balancer.wait_event("sentinel.reload_refused")
        balancer.wait_overall("healthy")

    assert "budgett" in refused["reason"]
    assert balancer.status()["restarts"]["budget"] == 1
    assert balancer.status()["pid"] == pid
    assert words == {"OK"}
    assert balancer.phases() == ["UP"]
    assert balancer.keepalived_states() == []
    balancer.assert_good()
    balancer.signal_haproxy("KILL")
    balancer.wait_mended(1)


def test_a_second_one_refuses(balancer: LoadBalancer) -> None:
    """Two would act against each other: the second names the first and leaves."""
    balancer.supervise()

    second = balancer.node.run(SENTINEL, "run", check=False)

    assert second.returncode == 1
    assert f"already running as process {balancer.status()['pid']}" in second.stderr
    assert "/run/sentinel/lock" in second.stderr
    balancer.assert_good()


def test_a_wrong_configuration_at_the_start(balancer: LoadBalancer) -> None:
    """It is refused once, with file, key and cure; the hook looks for itself meanwhile.

    The unit has failed, for whoever watches units; a mended file is started by hand.
    """
    balancer.node.write(SENTINEL_TOML, "[restart]\nbudgett = 1\n")

    balancer.node.run("systemctl", "start", "sentinel", check=False)

    said = balancer.node.journal("sentinel")
    assert f"{SENTINEL_TOML}: restart.budgett: unknown key" in said
    assert balancer.hook() == 0
    assert balancer.has_vip()
    unit = balancer.node.unit("sentinel")
    found = {name: unit[name] for name in ("ActiveState", "ExecMainStatus", "NRestarts")}
    assert found == {"ActiveState": "failed", "ExecMainStatus": "78", "NRestarts": "0"}
    balancer.node.write(SENTINEL_TOML, QUICK)
    balancer.node.run("systemctl", "start", "sentinel")
    balancer.wait_overall("healthy")
