"""The lab itself: a node is a real machine in all that matters, and leaves nothing behind."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from haproxies import wait_until
from lab.command import CommandFailed
from lab.network import Namespace, Switch
from lab.node import BootFailed, Node
from lab.traces import left_by, names, new_name

if TYPE_CHECKING:
    from lab.fixtures import MakeNode

pytestmark = pytest.mark.lab

HAPROXY_CFG: Final = """\
global
    stats socket /run/haproxy/admin.sock mode 660 level admin
defaults
    mode http
    timeout connect 2s
    timeout client 5s
    timeout server 5s
frontend fe
    bind 127.0.0.1:80
    http-request return status 200 content-type text/plain string {text}
"""
#: Succeeds when the machine answers at all; that nothing listens there is an answer.
CONNECT: Final = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 9), timeout=0.5)
except ConnectionRefusedError:
    pass
"""


def start_haproxy(node: Node, text: str = "ok") -> None:
    """Start the distribution's haproxy.service, answering on the node's loopback."""
    node.write("/etc/haproxy/haproxy.cfg", HAPROXY_CFG.format(text=text))
    node.run("systemctl", "start", "haproxy.service")


def fetch(node: Node) -> str:
    """Ask the node's HAProxy from within the node."""
    return node.run("curl", "--silent", "--show-error", "http://127.0.0.1/").stdout


def processes_in(network: int) -> list[int]:
    """Return the pids of the host that live in the network namespace of that inode."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "ns/net").stat().st_ino == network:
                found.append(int(folder.name))
    return found


def test_node_is_booted(node: Node) -> None:
    """Pid 1 is systemd, it has started all it was to start, and the node bears its own name."""
    assert node.run("cat", "/proc/1/comm").stdout == "systemd\n"
    assert node.run("systemctl", "is-system-running").stdout == "running\n"
    assert node.run("hostname").stdout == "lb1\n"


def test_haproxy_serves_under_systemd(node: Node) -> None:
    """The distribution's own unit runs HAProxy, and nobody outside the node can reach it."""
    start_haproxy(node)

    assert fetch(node) == "ok"
    assert node.unit("haproxy.service")["SubState"] == "running"
    assert "127.0.0.1:80" not in Path("/proc/net/tcp").read_text()


def test_systemd_restarts_killed_haproxy(node: Node) -> None:
    """A kill -9 of the master is answered by systemd's own Restart=."""
    start_haproxy(node)
    killed = node.unit("haproxy.service")["MainPID"]

    node.run("kill", "-9", killed)

    wait_until(lambda: node.unit("haproxy.service")["NRestarts"] == "1", "systemd restarts HAProxy")
    node.wait_until("systemctl is-active haproxy.service")
    assert node.unit("haproxy.service")["MainPID"] != killed
    assert fetch(node) == "ok"
    assert "status=9/KILL" in node.journal("haproxy.service")


def test_stopped_haproxy_is_inactive_with_success(node: Node) -> None:
    """An administrator's stop is told from a failure: inactive and success."""
    start_haproxy(node)

    node.run("systemctl", "stop", "haproxy.service")

    unit = node.unit("haproxy.service")
    assert (unit["ActiveState"], unit["Result"]) == ("inactive", "success")


def test_written_file_is_read(node: Node) -> None:
    """Text and mode arrive, in folders that did not exist, on the node's own tmpfs too."""
    node.write("/run/made/for/this", "two\nlines äöü\n", 0o640)

    assert node.read("/run/made/for/this") == "two\nlines äöü\n"
    assert node.run("stat", "-c", "%a", "/run/made/for/this").stdout == "640\n"


def test_failed_command_is_quoted(node: Node) -> None:
    """What a failing program said is in the exception; a hung one is ended at its deadline."""
    with pytest.raises(CommandFailed, match="no such thing") as failed:
        node.run("sh", "-c", "echo no such thing >&2; exit 3")
    assert failed.value.returncode == 3

    with pytest.raises(CommandFailed, match="killed at its deadline"):
        node.run("sleep", "1000", timeout_s=0.2)
    node.wait_until("! pgrep sleep")


def test_power_cut_keeps_files(node: Node) -> None:
    """A power cut ends every process at once; the next boot finds the files and the log of it."""
    node.write("/etc/haproxy/haproxy.cfg", HAPROXY_CFG.format(text="before"))
    node.run("systemctl", "enable", "--now", "haproxy.service")
    network = Path(f"/run/netns/{node.name}").stat().st_ino

    node.power_cut()

    assert processes_in(network) == []
    node.power_on()
    assert fetch(node) == "before"


def test_shut_down_stops_services(node: Node) -> None:
    """A shutdown goes through systemd's stop jobs, unlike a power cut."""
    start_haproxy(node)

    node.shut_down()

    assert not node.is_on
    node.power_on()
    assert "Stopped haproxy.service" in node.journal("haproxy.service")


def test_nothing_is_left(lab_image: Path) -> None:
    """After the end there is no process, mount, namespace, cgroup or file, not even of a daemon."""
    with Node(lab_image) as node:
        node.power_on()
        network = Path(f"/run/netns/{node.name}").stat().st_ino
        node.run("sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &")
        locks = set(Path("/run/systemd/nspawn/locks").iterdir())
        assert processes_in(network) != []
        assert left_by(node.name) != []

    assert processes_in(network) == []
    assert left_by(node.name) == []
    assert set(Path("/run/systemd/nspawn/locks").iterdir()) < locks


@pytest.mark.usefixtures("lab")
def test_failed_boot_leaves_nothing(tmp_path: Path) -> None:
    """An image that cannot boot is reported with systemd-nspawn's words and removed."""
    with Node(tmp_path) as node, pytest.raises(BootFailed, match="os-release"):
        node.power_on()

    assert left_by(node.name) == []


@pytest.mark.usefixtures("lab")
def test_node_without_image_leaves_nothing(tmp_path: Path) -> None:
    """A node that could not even be made is removed."""
    with pytest.raises(CommandFailed, match="mount"):
        Node(tmp_path / "missing")

    assert [name for name in names() if name.startswith(new_name().rpartition("-")[0])] == []


def test_two_nodes_do_not_disturb_each_other(make_node: MakeNode) -> None:
    """Both run haproxy.service on the same address; killing and stopping one leaves the other."""
    lb1, lb2 = make_node("lb1"), make_node("lb2")
    start_haproxy(lb1, "one")
    start_haproxy(lb2, "two")
    assert (fetch(lb1), fetch(lb2)) == ("one", "two")
    before = lb2.unit("haproxy.service")

    lb1.run("systemctl", "kill", "--signal=KILL", "haproxy.service")
    lb1.run("systemctl", "stop", "haproxy.service")
    lb1.power_cut()

    after = lb2.unit("haproxy.service")
    assert (after["MainPID"], after["NRestarts"]) == (before["MainPID"], "0")
    assert fetch(lb2) == "two"


def test_nodes_meet_at_a_switch(make_node: MakeNode) -> None:
    """A client reaches both nodes; a pulled cable and a power cut each silence one of them."""
    lb1, lb2 = make_node("lb1"), make_node("lb2")
    with Switch() as switch, Namespace() as client:
        switch.connect(lb1.network, "10.0.0.1/24")
        switch.connect(lb2.network, "10.0.0.2/24")
        switch.connect(client, "10.0.0.9/24")

        def answers(address: str) -> bool:
            connect = (sys.executable, "-c", CONNECT, address)
            return client.run(*connect, check=False).returncode == 0

        wait_until(lambda: answers("10.0.0.1") and answers("10.0.0.2"), "both nodes answer")
        switch.pull(lb1.network)
        assert not answers("10.0.0.1")
        assert answers("10.0.0.2")
        switch.plug(lb1.network)
        wait_until(lambda: answers("10.0.0.1"), "the plugged node answers")
        lb2.network.ip("address", "add", "10.0.0.10/32", "dev", "eth0")
        lb2.power_cut()
        assert not answers("10.0.0.2")
        lb2.power_on()
        wait_until(lambda: answers("10.0.0.2"), "the node answers after its boot")
        assert "10.0.0.10" not in lb2.network.ip("address")
