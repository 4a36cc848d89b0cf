"""sentinel's own life: started twice, killed in every phase, reloaded, stopped, only trying."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from daemons import ROOT, Daemon, Node, supervising
from haproxies import DEADLINE_S, wait_until

from sentinel.commands.client import ask

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.real


def memory(node: Node) -> dict[str, Any]:
    """Return what sentinel has put down for a successor."""
    return dict(json.loads((node.folder / "memory.json").read_text()))


# --- alone ----------------------------------------------------------------------------------------


def test_a_second_supervisor_is_refused(node: Node) -> None:
    """It names the process that runs and the lock that it holds, and disturbs nothing."""
    with supervising(node) as sentinel:
        argv = [sys.executable, "-m", "sentinel", "run", "--config", str(node.sentinel_toml)]
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=DEADLINE_S, cwd=ROOT, check=False
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert f"process {sentinel.process.pid}" in done.stderr
        assert str(node.folder / "lock") in done.stderr
        assert "another run_dir" in done.stderr
        assert sentinel.status()["pid"] == sentinel.process.pid
    with supervising(node):  # the lock goes with its holder
        pass


def test_another_run_dir_does_not_take_the_status_socket_away(node: Node) -> None:
    """Two nodes' worth of sentinel with one status socket: the first keeps it, the second says."""
    with supervising(node) as first:
        (node.folder / "other").mkdir()
        socket = {"socket": str(node.folder / "status.sock")}
        node.configure(run_dir=str(node.folder / "other"), status=socket)
        with supervising(node, "--dry-run", learned=False) as second:
            second.wait_for("status.unavailable", reason="another process listens on it")
            second.wait_for("phase.changed")
            assert first.status()["pid"] == first.process.pid
        assert first.status()["pid"] == first.process.pid


def test_another_run_dir_is_all_that_a_second_one_needs(node: Node) -> None:
    """Each has its own lease, track file and sockets, and neither looks at the other's."""
    with supervising(node) as first:
        other = node.folder / "other"
        other.mkdir()
        node.configure(run_dir=str(other))
        with supervising(node, learned=False) as second:
            wait_until((other / "lease").exists, "the second has a lease of its own")
            assert ask(str(other / "status.sock"))["pid"] == second.process.pid
            assert {"track", "track-priority", "control.sock"} <= {p.name for p in other.iterdir()}
            assert first.status()["pid"] == first.process.pid
            assert first.status()["errors"] == []
        assert node.leased == "OK"


# --- killed ---------------------------------------------------------------------------------------


def up(node: Node, sentinel: Daemon) -> None:
    """Leave it as it is."""
    assert node.answers()
    assert sentinel.running


def mending(node: Node, sentinel: Daemon) -> None:
    """Begin a start that takes its time."""
    node.command("haproxy-start", f"sleep 0.5; exec {node.haproxy_command}")
    node.signal(signal.SIGKILL)
    sentinel.wait_for("phase.changed", to="MENDING")


def hung(node: Node, sentinel: Daemon) -> None:
    """Stop every process of HAProxy."""
    node.signal(signal.SIGSTOP)
    sentinel.wait_for("phase.changed", to="HUNG")


def failed(node: Node, sentinel: Daemon) -> None:
    """Let it die with a broken configuration, until keepalived is stopped."""
    node.haproxy_cfg.write_text(node.haproxy_cfg.read_text() + "    broken\n")
    sentinel.wait_for("configuration.invalid")
    node.signal(signal.SIGKILL)
    sentinel.wait_for("keepalived.stopped")


def holding(node: Node, sentinel: Daemon) -> None:
    """Mend what failed, and do not wait for the end of the hold."""
    good = node.haproxy_cfg.read_text()
    failed(node, sentinel)
    node.haproxy_cfg.write_text(good)
    sentinel.wait_for("phase.changed", to="HOLDING")


@pytest.mark.parametrize("lead_into", [up, mending, hung, failed, holding])
def test_killed_in_any_phase_it_goes_on(
    node: Node, lead_into: Callable[[Node, Daemon], None]
) -> None:
    """A successor ends what was begun: HAProxy serves once, keepalived runs, nothing is doubled."""
    good = node.haproxy_cfg.read_text()
    with supervising(node) as first:
        lead_into(node, first)
        first.kill()
    spent = memory(node)["restarts"]
    node.haproxy_cfg.write_text(good)
    with supervising(node, learned=False) as second:
        second.wait_until(
            lambda found: found["overall"] == "healthy" and found["phase"] == "UP", "all is well"
        )
        wait_until(lambda: node.leased == "OK", "the node serves")
        assert node.answers()
        wait_until(lambda: len(node.masters) == 1, "one HAProxy is left")
        assert node.calls("keepalived-start") == node.calls("keepalived-stop")
        assert set(spent) <= set(memory(node)["restarts"])
        assert second.status()["restarts"]["used"] == len(memory(node)["restarts"])


def test_the_budget_survives_a_kill(node: Node) -> None:
    """What the first has spent the second does not have."""
    node.configure(restart={"budget": 2, "window": "1m"})
    with supervising(node) as first:
        for _ in range(2):
            node.signal(signal.SIGKILL)
            first.wait_for("haproxy.restarted")
        first.kill()
    with supervising(node, learned=False) as second:
        second.wait_for("phase.changed", to="UP")
        node.signal(signal.SIGKILL)
        second.wait_for("haproxy.failed", reason="restart budget is spent: 2")
        second.wait_for("keepalived.stopped")
        assert second.status()["restarts"]["used"] == 2
        assert node.calls("haproxy-start") == 2
        second.kill()
    node.start()  # by hand
    with supervising(node, learned=False) as third:
        third.wait_for("phase.changed", to="HOLDING")
        third.wait_for("keepalived.started")


def test_a_damaged_memory_is_told_and_replaced(node: Node) -> None:
    """What was spent is not known any more, which somebody should know."""
    (node.folder / "memory.json").write_text('{"boot_id": 1')
    with supervising(node) as sentinel:
        assert sentinel.count("memory.lost", reason="memory.json") == 1
        assert memory(node)["restarts"] == []
        assert sentinel.status()["errors"] == []


# --- stopped --------------------------------------------------------------------------------------


def test_a_stop_leaves_everything_as_it_is(node: Node) -> None:
    """HAProxy, keepalived, the lease and the track file stay; the socket goes; exit 0."""
    pids = node.pids
    with supervising(node) as sentinel:
        assert sentinel.terminate() == 0
        assert sentinel.names()[-1] == "sentinel.stopped"
        assert node.pids == pids
        assert (node.leased, node.tracked) == ("OK", "0")
        assert not (node.folder / "status.sock").exists()
        assert node.calls("keepalived-stop") == 0
        assert node.hook() == 0  # by the lease, then by its own look


def test_a_stop_says_that_it_leaves_keepalived_in_fault(node: Node) -> None:
    """The track file stays for the successor; where there will be none somebody has to know."""
    with supervising(node) as sentinel:
        failed(node, sentinel)
        wait_until(lambda: node.tracked == "1", "keepalived is in FAULT")
        assert sentinel.terminate() == 0
        assert node.tracked == "1"
        reason = f"leaves keepalived in FAULT: start sentinel, or echo 0 > {node.folder}/track"
        assert sentinel.count("sentinel.stopped", reason=reason) == 1


def test_a_stop_lets_a_start_end(node: Node) -> None:
    """A start command that is killed half way would leave HAProxy down."""
    with supervising(node) as sentinel:
        node.command("haproxy-start", f"sleep 0.5; exec {node.haproxy_command}")
        node.signal(signal.SIGKILL)
        sentinel.wait_for("phase.changed", to="MENDING")
        wait_until(lambda: node.calls("haproxy-start") == 1, "the start has begun")
        assert sentinel.terminate() == 0
        wait_until(node.answers, "HAProxy was started")
        assert node.calls("haproxy-start") == 1


def test_a_stop_is_heard_at_once_while_nothing_answers(node: Node) -> None:
    """Right after its start as well, whatever it is waiting for."""
    for _ in range(3):
        with supervising(node, learned=False) as sentinel:
            assert sentinel.terminate() == 0


# --- reloaded -------------------------------------------------------------------------------------


def test_a_reload_takes_what_is_right_and_refuses_what_is_wrong(node: Node) -> None:
    """A wrong file, and another run_dir, change nothing; a right one keeps all that is known."""
    with supervising(node) as sentinel:
        before = sentinel.status()
        node.sentinel_toml.write_text("[haproxy]\nexecutabel = 1\n")
        sentinel.process.send_signal(signal.SIGHUP)
        sentinel.wait_for("sentinel.reload_refused", reason="executabel")
        node.configure(run_dir=str(node.folder / "other"))
        sentinel.process.send_signal(signal.SIGHUP)
        sentinel.wait_for("sentinel.reload_refused", reason="run_dir")
        node.configure(node="renamed", restart={"budget": 2})
        sentinel.reload()
        after = sentinel.wait_until(lambda found: found["node"] == "renamed", "it is renamed")
        assert after["restarts"]["budget"] == 2
        assert after["phase"] == "UP"
        assert after["uptime_ms"] >= before["uptime_ms"]
        assert after["history"][: len(before["history"])][0]["event"] == "haproxy.seen"
        assert (node.leased, node.tracked) == ("OK", "0")
        assert sentinel.count("haproxy.seen") == 1
        assert node.calls("haproxy-start") == 0


def test_a_status_group_that_is_missing_leaves_root(node: Node) -> None:
    """Root is told why nobody else may ask, by the log and by the status itself."""
    node.configure(status={"group": "no-such-group"})
    with supervising(node) as sentinel:
        assert sentinel.count("status.unavailable", reason="there is no group no-such-group") == 1
        (error,) = sentinel.status()["errors"]
        assert "only root may ask" in error


def test_reloads_do_not_interrupt_each_other(node: Node) -> None:
    """However fast they come, one sentinel is left, and it works by the last file."""
    with supervising(node) as sentinel:
        for number in range(10):
            node.configure(node=f"name{number}")
            sentinel.process.send_signal(signal.SIGHUP)
        sentinel.wait_until(lambda found: found["node"] == "name9", "the last one counts")
        node.signal(signal.SIGKILL)
        sentinel.wait_for("haproxy.restarted")
        assert node.calls("haproxy-start") == 1


def test_a_reload_during_a_start_that_hangs_gives_it_up(node: Node) -> None:
    """What nobody performs any more is not waited for; the next start is made."""
    with supervising(node) as sentinel:
        node.command("haproxy-start", "sleep 60 & wait")
        node.configure(haproxy={"command_timeout": "60s"})
        sentinel.reload()
        node.signal(signal.SIGKILL)
        sentinel.wait_for("phase.changed", to="MENDING")
        wait_until(lambda: node.calls("haproxy-start") == 1, "the start has begun")
        node.start_by()
        sentinel.process.send_signal(signal.SIGHUP)
        sentinel.wait_for("action.failed", reason="sentinel was reloaded before it ended")
        sentinel.wait_for("haproxy.restarted")
        assert node.calls("haproxy-start") == 2
        assert len(node.masters) == 1


# --- looking, and only trying ---------------------------------------------------------------------


def test_sigusr1_runs_every_check_now(node: Node) -> None:
    """Also those whose turn would come in an hour."""
    pace = {"inter": "1h", "fastinter": "1h", "downinter": "1h"}
    with supervising(node) as sentinel:
        node.configure(configuration=pace)
        sentinel.reload()
        sentinel.wait_for_steps(2)
        node.haproxy_cfg.write_text(node.haproxy_cfg.read_text() + "    broken\n")
        sentinel.wait_for_steps(2)
        assert sentinel.count("configuration.invalid") == 0
        sentinel.check_now()
        sentinel.wait_for("configuration.invalid")


def test_a_dry_run_acts_on_nothing_and_writes_nothing(node: Node) -> None:
    """It sees what happens, says what it would do, and that is all."""
    before = {path.name for path in node.folder.iterdir()}
    node.configure(restart={"budget": 1, "window": "1m", "verify": "300ms"})
    with ExitStack() as stack:
        sentinel = stack.enter_context(supervising(node, "--dry-run", learned=False))
        document = sentinel.wait_until(lambda found: found["overall"] == "healthy", "all is well")
        assert document["dry_run"] is True
        node.signal(signal.SIGKILL)
        sentinel.wait_for("haproxy.died")
        sentinel.wait_for("action.skipped", action="RestartHaproxy")
        sentinel.wait_for("haproxy.failed")
        sentinel.wait_for("action.skipped", action="StopKeepalived")
        assert not (node.folder / "calls").exists()
        node.signal(signal.SIGKILL)
        assert node.pids == ()
        assert {path.name for path in node.folder.iterdir()} - before == {"status.sock"}
    assert {path.name for path in node.folder.iterdir()} == before


def test_a_dry_run_kills_nobody(node: Node) -> None:
    """A hung HAProxy is left as it is."""
    with supervising(node, "--dry-run", learned=False) as sentinel:
        sentinel.wait_until(lambda found: found["overall"] == "healthy", "all is well")
        sentinel.wait_for_check("runtime", "L7OK")
        pids = node.pids
        node.signal(signal.SIGSTOP)
        sentinel.wait_for("action.skipped", action="KillHaproxy")
        assert node.pids == pids
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        assert node.answers()
