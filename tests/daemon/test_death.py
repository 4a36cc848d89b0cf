"""HAProxy dies, hangs, or cannot be started: what sentinel kills, starts, yields, and tells.

One daemon lives through several faults, as it does in life.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack

import pytest
from daemons import Daemon, Node, supervising
from haproxies import start_haproxy, wait_until

from sentinel.processes import procfs

pytestmark = pytest.mark.real


def well_again(node: Node, sentinel: Daemon) -> None:
    """Wait for the end of an outage, and check that nothing is left of it."""
    sentinel.wait_for("haproxy.restarted")
    sentinel.wait_for("phase.changed", to="UP")
    wait_until(lambda: node.leased == "OK", "the lease says OK again")
    assert node.tracked == "0"
    assert node.hook() == 0
    assert node.answers()
    assert len(node.masters) == 1
    assert node.calls("keepalived-stop") == 0


def test_deaths_are_mended_one_after_another(node: Node) -> None:
    """All processes, the worker alone, the master alone: each death is one start, no more."""
    with supervising(node) as sentinel:
        for number, role in enumerate(("all", "worker", "master"), start=1):
            pids = {"all": node.pids, "worker": (node.worker,), "master": (node.master,)}
            node.signal(signal.SIGKILL, *pids[role])
            sentinel.wait_for("haproxy.died")
            well_again(node, sentinel)
            assert node.calls("haproxy-start") == number


def test_hangs_are_yielded_then_mended(node: Node) -> None:
    """A stopped HAProxy is seen, the node yields, and it is replaced; the worker alone as well."""
    with supervising(node) as sentinel:
        for number, role in enumerate(("all", "worker"), start=1):
            before = node.pids
            node.signal(signal.SIGSTOP, *{"all": before, "worker": (node.worker,)}[role])
            sentinel.wait_for("haproxy.hung")
            sentinel.wait_for("haproxy.killed")
            well_again(node, sentinel)
            assert node.worker not in before
            assert node.calls("haproxy-start") == number


def test_yields_while_it_is_hung(node: Node) -> None:
    """From the moment a hang is known, and while nothing can be done, keepalived hears FAIL."""
    node.configure(restart={"budget": 0})
    with supervising(node) as sentinel:
        node.signal(signal.SIGSTOP)
        sentinel.wait_for("haproxy.hung")
        wait_until(lambda: (node.leased, node.tracked) == ("FAIL", "1"), "the node yields")
        assert node.hook() == 1
        node.signal(signal.SIGCONT)
        sentinel.wait_for("haproxy.recovered")
        wait_until(lambda: (node.leased, node.tracked) == ("OK", "0"), "the node serves")
        assert node.calls("haproxy-start") == 0


def test_a_start_that_starts_nothing_spends_the_budget_then_stops_keepalived(node: Node) -> None:
    """The command's exit 0 proves nothing; once it is mended, keepalived is started again."""
    node.configure(restart={"budget": 2, "window": "3s", "verify": "300ms"})
    with supervising(node) as sentinel:
        node.command("haproxy-start", "exit 0")
        node.signal(signal.SIGKILL)
        sentinel.wait_for("haproxy.start_failed", reason="no proof of life")
        sentinel.wait_for("haproxy.failed", reason="budget is spent")
        sentinel.wait_for("keepalived.stopped")
        assert node.hook() == 1
        assert node.calls("haproxy-start") == 2
        node.start_by()
        sentinel.wait_for("haproxy.restarted")
        sentinel.wait_for("keepalived.started")
        wait_until(lambda: node.leased == "OK", "the node serves")
        assert (node.calls("keepalived-stop"), node.calls("keepalived-start")) == (1, 1)
        assert node.calls("haproxy-start") == 3
        assert len(node.masters) == 1


def test_a_missing_chroot_fails_after_a_start_that_looked_well(node: Node) -> None:
    """``haproxy -c`` and ``haproxy -D`` are content; what becomes of the worker is not."""
    node.configure(restart={"budget": 2, "window": "3s", "verify": "500ms"})
    good = node.haproxy_cfg.read_text()
    with supervising(node) as sentinel:
        node.haproxy_cfg.write_text(good.replace("global", "global\n    chroot /nowhere", 1))
        node.signal(signal.SIGKILL)
        sentinel.wait_for("haproxy.failed", reason="budget is spent")
        assert sentinel.check("configuration")["verdict"] == "PASS"
        node.haproxy_cfg.write_text(good)
        sentinel.wait_for("haproxy.restarted")
        assert node.calls("haproxy-start") == 3


def test_a_hanging_start_command_is_killed_and_tried_again(node: Node) -> None:
    """The deadline is ours; what the command left behind is gone before the next one."""
    node.configure(haproxy={"command_timeout": "300ms"})
    with supervising(node) as sentinel:
        node.command("haproxy-start", "sleep 60 & wait")
        node.signal(signal.SIGKILL)
        sentinel.wait_for("action.failed", action="RestartHaproxy", reason="killed after 0.3 s")
        node.start_by()
        well_again(node, sentinel)
        assert (
            "sleep"
            not in subprocess.run(
                ["ps", "-o", "comm=", "--ppid", str(sentinel.process.pid)],
                capture_output=True,
                text=True,
                check=False,
            ).stdout
        )


def test_a_broken_configuration_forbids_a_start(node: Node) -> None:
    """While it is broken nothing is started; a death then yields at once; mended, all is mended."""
    good = node.haproxy_cfg.read_text()
    with supervising(node) as sentinel:
        node.haproxy_cfg.write_text(good + "    no-such-keyword\n")
        sentinel.wait_for("configuration.invalid", reason="no-such-keyword")
        document = sentinel.status()
        assert (document["overall"], document["serving"]) == ("degraded", True)
        assert "no-such-keyword" in document["haproxy"]["configuration"]["error"]
        node.signal(signal.SIGKILL)
        sentinel.wait_for("haproxy.failed", reason="configuration is invalid")
        sentinel.wait_for("keepalived.stopped")
        assert node.hook() == 1
        assert sentinel.status()["overall"] == "failed"
        node.haproxy_cfg.write_text(good)
        sentinel.wait_for("configuration.valid")
        sentinel.wait_for("haproxy.restarted")
        sentinel.wait_for("keepalived.started")
        assert node.calls("haproxy-start") == 1


def test_saturation_is_no_fault(node: Node) -> None:
    """Every connection is held: probes time out, and nothing is killed, started or yielded."""
    probe = {"name": "web", "address": f"127.0.0.1:{node.port}", "fall": 2}
    pace = {"inter": "100ms", "fastinter": "100ms", "downinter": "100ms", "timeout": "200ms"}
    few = node.haproxy_cfg.read_text().replace("maxconn 100", "maxconn 5")
    node.haproxy_cfg.write_text(few.replace("timeout client 5s", "timeout client 60s"))
    node.signal(signal.SIGKILL)
    node.start()
    node.configure(probe=[{**probe, **pace}])
    with supervising(node) as sentinel, ExitStack() as held:
        pids = node.pids
        for _ in range(5):
            client = held.enter_context(socket.create_connection(("127.0.0.1", node.port)))
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n")
        sentinel.wait_for("haproxy.saturated", reason="CurrConns 5 of Maxconn 5")
        sentinel.wait_until(lambda _: "TOUT" in sentinel.check("web")["check_code"], "silence")
        sentinel.wait_for_steps(6)
        document = sentinel.status()
        assert (document["phase"], document["serving"]) == ("UP", True)
        assert document["overall"] == "degraded"
        assert document["haproxy"]["saturated"] is True
        assert (node.leased, node.tracked) == ("OK", "0")
        held.close()
        sentinel.wait_for("haproxy.unsaturated")
        sentinel.wait_until(lambda found: found["overall"] == "healthy", "all is well")
        assert node.pids == pids
        assert node.calls("haproxy-start") == 0


def test_an_orphan_on_the_listener_is_killed(node: Node) -> None:
    """Left over from an earlier start, with our configuration, it takes connections: it must go."""
    (node.folder / "haproxy.pid").unlink()
    orphans = node.pids
    node.start()
    with supervising(node) as sentinel:
        sentinel.wait_for("haproxy.orphan_killed")
        wait_until(lambda: not set(orphans) & set(node.pids), "the orphan is gone")
        sentinel.wait_until(lambda found: found["overall"] == "healthy", "all is well")
        assert node.calls("haproxy-start") == 0
        assert len(node.masters) == 1
        assert sentinel.count("haproxy.killed") == 0


_SQUATTER = """\
import socket, sys
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen()
print("listens", flush=True)
while True:
    listener.accept()
"""


def test_others_on_the_listener_are_only_reported(node: Node) -> None:
    """A younger HAProxy may be meant, and another program is nobody of ours: both stay alive."""
    more = node.folder / "more.cfg"
    more.write_text(node.haproxy_cfg.read_text().replace("admin.sock", "other.sock"))
    argv = [sys.executable, "-c", _SQUATTER, str(node.port)]
    with (
        supervising(node) as sentinel,
        subprocess.Popen(argv, stdout=subprocess.PIPE) as squatter,
    ):
        other = start_haproxy(more, flags=())
        try:
            assert squatter.stdout is not None
            assert squatter.stdout.readline() == b"listens\n"
            wait_until(lambda: _holds(other.process.pid, node.port), "the other one listens")
            sentinel.check_now()
            sentinel.wait_for("check.down", check="listeners")
            told = sentinel.check("listeners")["last_chk"]
            assert {str(squatter.pid), str(other.process.pid)} <= set(re.findall(r"\d+", told))
            sentinel.wait_for_steps(3)
            assert (squatter.poll(), other.process.poll()) == (None, None)
            assert (node.calls("haproxy-start"), sentinel.count("haproxy.orphan_killed")) == (0, 0)
        finally:
            other.kill()
            squatter.kill()
        sentinel.wait_for("check.up", check="listeners")


def _holds(pid: int, port: int) -> bool:
    """Tell whether *pid* listens on *port*."""
    inodes = set(procfs.socket_inodes(pid))
    return any(at.port == port and at.inode in inodes for at in procfs.listening_sockets(pid))
