"""The service drivers inside a node, against a real systemd and Debian's own haproxy.service."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any, Final

import pytest
from haproxies import answering_config
from lab.fixtures import lab, lab_image  # noqa: F401  (fixtures of this module from here on)
from lab.image import VENV
from lab.installation import install_sentinel
from lab.node import Node
from lab.traces import init_pid

from sentinel.actions import Outcome
from sentinel.model import ServiceState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.lab

CONFIG: Final = "/etc/haproxy/haproxy.cfg"
DROP_IN: Final = "/run/systemd/system/haproxy.service.d/test.conf"
INIT: Final = "/usr/local/bin/init-haproxy"
#: Debian's init script as it is without systemd: with it, it would only call systemctl.
INIT_SCRIPT: Final = "#!/bin/sh\nSYSTEMCTL_SKIP_REDIRECT=1 exec /etc/init.d/haproxy $1\n"
COMMANDS: Final = f"""CommandService(
    start=({INIT!r}, "start"), stop=({INIT!r}, "stop"), restart=({INIT!r}, "restart"),
    timeout_s=30, alive=lambda: os.system("pidof haproxy >/dev/null") == 0,
)"""
#: Runs methods of a driver in the node, one after the other, and prints what each returned.
DRIVE: Final = """
import asyncio, dataclasses, json, os, sys
from sentinel.drivers import service

async def main(build, *methods):
    driver = eval(build, vars(service) | {"os": os})
    for method in methods:
        print(json.dumps(dataclasses.asdict(await getattr(driver, method)())))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def machine(lab_image: Path) -> Iterator[Node]:  # noqa: F811  (that is how pytest names what it gives)
    """Boot one node for all tests here, with sentinel and a haproxy that answers."""
    with Node(lab_image) as node:
        node.power_on()
        install_sentinel(node)
        node.write("/root/drive.py", DRIVE)
        yield node


@pytest.fixture
def node(machine: Node) -> Node:
    """Bring haproxy.service back to how Debian ships it, running."""
    machine.write(CONFIG, answering_config(8080))
    machine.run("sh", "-c", f"systemctl unmask haproxy; rm -f {DROP_IN}")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "kill", "--signal=KILL", "haproxy", check=False)
    machine.run("systemctl", "reset-failed", "haproxy", check=False)
    machine.run("systemctl", "restart", "haproxy", timeout_s=30)
    return machine


def drive(node: Node, *methods: str, build: str) -> list[dict[str, Any]]:
    """Run methods of the driver that *build* makes, and return what they returned."""
    argv = (f"{VENV}/bin/python", "/root/drive.py", build, *methods)
    lines = node.run(*argv, timeout_s=60).stdout.splitlines()
    return [json.loads(line) for line in lines]


def systemd(timeout_s: float = 30, unit: str = "haproxy.service") -> str:
    """Return the code that makes a driver for systemd."""
    return f"SystemdService({unit!r}, {timeout_s})"


def look(node: Node, unit: str = "haproxy.service") -> ServiceState:
    """Look at a unit as the driver does."""
    (seen,) = drive(node, "look", build=systemd(unit=unit))
    return ServiceState(**seen)


def do(node: Node, method: str, timeout_s: float = 30, unit: str = "haproxy.service") -> Outcome:
    """Look, as is always done before an action, and then act."""
    _, done = drive(node, "look", method, build=systemd(timeout_s, unit))
    return Outcome(**done)


def drop_in(node: Node, *lines: str) -> None:
    """Change settings of haproxy.service's [Service]."""
    node.write(DROP_IN, "\n".join(("[Service]", *lines, "")))
    node.run("systemctl", "daemon-reload")


def crash(node: Node) -> None:
    """Kill all of HAProxy at once, and wait until systemd has seen it."""
    node.run("systemctl", "kill", "--signal=KILL", "haproxy")
    node.wait_until("! systemctl show haproxy -p SubState | grep -Eq 'running|stop'")


def masters(node: Node) -> int:
    """Return how many HAProxys run: masters, or processes on their own."""
    pids = set(node.run("pidof", "haproxy", check=False).stdout.split())
    parents = node.run("ps", "-o", "ppid=", "-p", ",".join(pids) or "1").stdout.split()
    return sum(parent not in pids for parent in parents) if pids else 0


def test_a_running_unit(node: Node) -> None:
    """A running unit is read as systemd shows it."""
    seen = look(node)
    assert (seen.known, seen.active, seen.sub) == (True, "active", "running")
    assert seen.main_pid == int(node.unit("haproxy")["MainPID"])
    assert not seen.job_pending
    assert not seen.intended_stop


def test_a_crash_is_restarted_without_the_pause(node: Node) -> None:
    """A restart ends the pause of an automatic restart, and there is one HAProxy afterwards."""
    drop_in(node, "RestartSec=600")
    crash(node)
    seen = look(node)
    assert (seen.active, seen.sub, seen.result) == ("activating", "auto-restart", "signal")
    assert not seen.job_pending
    assert not seen.intended_stop
    assert do(node, "restart") == Outcome(ok=True)
    assert look(node).sub == "running"
    assert masters(node) == 1


def test_a_restart_races_an_automatic_one(node: Node) -> None:
    """Whoever is first, systemd or we, there is one HAProxy afterwards."""
    for _ in range(3):
        node.run("systemctl", "kill", "--signal=KILL", "haproxy")
        assert do(node, "restart").ok
        assert masters(node) == 1
        node.run("systemctl", "reset-failed", "haproxy")


def test_start_in_the_pause(node: Node) -> None:
    """A start may have to wait for the pause (systemd 252): then we say where the unit is."""
    drop_in(node, "RestartSec=600")
    crash(node)
    outcome = do(node, "start", timeout_s=2)
    if outcome.ok:
        assert look(node).sub == "running"
    else:
        assert "killed after 2 s; unit is activating (auto-restart)" in outcome.detail


def test_an_administrators_stop(node: Node) -> None:
    """A stop that was asked for is intent; a crash just before is not one."""
    node.run("systemctl", "stop", "haproxy")
    assert look(node).intended_stop == "unit was stopped"
    assert do(node, "start").ok
    assert not look(node).intended_stop


def test_stop_of_ours(node: Node) -> None:
    """Our own stop ends the unit."""
    assert do(node, "stop").ok
    assert masters(node) == 0


def test_a_masked_unit(node: Node) -> None:
    """A masked unit is intent, and cannot be started."""
    node.run("systemctl", "stop", "haproxy")
    node.run("systemctl", "mask", "haproxy")
    assert look(node).intended_stop == "unit is masked"
    outcome = do(node, "restart")
    assert not outcome.ok
    assert "masked" in outcome.detail


def test_a_unit_that_does_not_exist(node: Node) -> None:
    """About a unit that systemd does not have nothing is known, and a restart says so."""
    assert not look(node, "none.service").known
    outcome = do(node, "restart", unit="none.service")
    assert not outcome.ok
    assert "none.service not found" in outcome.detail


def test_a_broken_configuration_and_its_mending(node: Node) -> None:
    """After a crash loop systemd refuses every start: a mended unit is reset and started."""
    node.write(CONFIG, "nonsense\n")
    crash(node)
    node.wait_until("systemctl is-failed haproxy")
    seen = look(node)
    assert (seen.active, seen.result) == ("failed", "exit-code")
    assert not seen.intended_stop
    still_broken = do(node, "restart")
    assert not still_broken.ok
    assert "result exit-code" in still_broken.detail
    node.wait_until("systemctl is-failed haproxy")
    node.write(CONFIG, answering_config(8080))
    assert do(node, "restart") == Outcome(ok=True)
    assert look(node).sub == "running"


def test_the_start_limit(node: Node) -> None:
    """A restart that hits systemd's start limit leaves HAProxy stopped; ours starts it again."""
    drop_in(node, "[Unit]", "StartLimitIntervalSec=600", "StartLimitBurst=3")
    node.run("systemctl", "reset-failed", "haproxy")
    refused = [
        node.run("systemctl", "restart", "haproxy", check=False).returncode for _ in range(4)
    ]
    assert refused == [0, 0, 0, 1]
    assert look(node).result == "start-limit-hit"
    for _ in range(4):
        assert do(node, "restart").ok
    assert masters(node) == 1


def test_a_pending_stop_is_not_overridden(node: Node) -> None:
    """While an administrator's stop is under way systemd refuses our restart at once."""
    drop_in(node, "ExecStop=/bin/sh -c 'while ! test -e /run/go; do sleep 0.05; done'")
    node.run("rm", "-f", "/run/go")
    node.run("systemctl", "stop", "--no-block", "haproxy")
    node.wait_until("systemctl show haproxy -p ActiveState | grep deactivating")
    seen = look(node)
    assert (seen.active, seen.job_pending) == ("deactivating", True)
    outcome = do(node, "restart")
    assert not outcome.ok
    assert "destructive" in outcome.detail
    assert "a job is pending" in outcome.detail
    node.run("touch", "/run/go")
    node.wait_until("systemctl show haproxy -p ActiveState | grep inactive")
    assert look(node).intended_stop == "unit was stopped"


def test_a_unit_hung_in_its_stop(node: Node) -> None:
    """A restart that waits for a stop without end is given up at our deadline and says why."""
    drop_in(node, "ExecStop=/bin/sleep 600")
    outcome = do(node, "restart", timeout_s=1)
    assert not outcome.ok
    assert "killed after 1 s" in outcome.detail
    assert "unit is deactivating (stop)" in outcome.detail
    assert "a job is pending" in outcome.detail


def test_a_hung_systemd(node: Node) -> None:
    """A systemd that answers nothing costs its deadline and makes nothing known."""
    pid = init_pid(node.name)
    os.kill(pid, signal.SIGSTOP)
    try:
        seen, outcome = drive(node, "look", "restart", build=systemd(1))
    finally:
        os.kill(pid, signal.SIGCONT)
    assert not ServiceState(**seen).known
    assert outcome["detail"] == "systemctl restart haproxy.service: killed after 1 s"
    node.wait_until("systemctl show haproxy -p SubState | grep running")


def test_commands_with_debians_init_script(node: Node) -> None:
    """Debian's /etc/init.d/haproxy by itself, as without systemd: start, crash, restart, stop."""
    node.run("systemctl", "stop", "haproxy")
    node.write(INIT, INIT_SCRIPT, 0o755)
    (started,) = drive(node, "start", build=COMMANDS)
    assert started["ok"]
    assert masters(node) == 1
    (restarted,) = drive(node, "restart", build=COMMANDS)
    assert restarted["ok"]
    assert masters(node) == 1
    node.run("killall", "-KILL", "haproxy")
    node.wait_until("! pidof haproxy")
    (restarted,) = drive(node, "restart", build=COMMANDS)
    assert restarted["ok"]
    assert masters(node) == 1
    (stopped,) = drive(node, "stop", build=COMMANDS)
    assert stopped["ok"]
    assert masters(node) == 0


def test_the_choice_of_a_manager(node: Node) -> None:
    """On a node with systemd, AUTO is systemd for the units it has, else the commands."""
    code = """
import asyncio
from sentinel.config import Haproxy
from sentinel.drivers.service import choose
for unit in ("haproxy.service", "none.service"):
    driver = asyncio.run(choose(Haproxy(unit=unit), alive=lambda: False))
    print(type(driver).__name__)
"""
    chosen = node.run(f"{VENV}/bin/python", "-c", code).stdout.split()
    assert chosen == ["SystemdService", "CommandService"]
