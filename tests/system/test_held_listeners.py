"""systemd holds HAProxy's listeners, as the README says: whatever dies, nobody is refused.

A client asks this node, not the VIP, every few milliseconds over new connections; what it was told
is judged in the end. It is the benches' asker, a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest
from haproxies import wait_until
from lab.held import hold_listeners, let_listeners_go
from lab.image import PROJECT
from system.boot import on_every_suite
from system.shipped import ADDRESS, HAPROXY_CFG, haproxy_cfg

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from system.loadbalancer import LoadBalancer

pytestmark = pytest.mark.lab

EVERY_MS: Final = 5
#: Longer than any of these faults lasts: what is late at last was never going to be answered.
PATIENCE_MS: Final = 10_000
#: The supervisor looks at a stopped unit every 2 s.
SEVERAL_LOOKS_MS: Final = 5000
BIND: Final = '"${HTTP_IN-:80}"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request over a connection of its own, in seconds of CLOCK_MONOTONIC."""

    begun_s: float
    ended_s: float
    how: str  # "good", or what came instead


class Client:
    """Reads what the asker prints."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def attempts(self) -> list[Attempt]:
        """Return every attempt that has ended."""
        lines = self._file.read_text().splitlines(keepends=True)
        words = (line.split() for line in lines if line.endswith("\n"))
        return [
            Attempt(begun_s=float(begun), ended_s=float(ended), how=how)
            for begun, ended, how in words
        ]

    def failed(self) -> list[Attempt]:
        """Return those that got no good answer."""
        return [attempt for attempt in self.attempts() if attempt.how != "good"]

    def wait_served(self) -> None:
        """Wait until everything asked for until now has ended, and a good answer has come since."""
        now_s = time.monotonic()

        def served() -> bool:
            later = [attempt for attempt in self.attempts() if attempt.begun_s > now_s]
            return bool(later) and later[-1].how == "good"

        wait_until(served, "the client is served")

    def slowest_ms(self) -> float:
        """Return how long the slowest good answer took."""
        good = [attempt for attempt in self.attempts() if attempt.how == "good"]
        return max(attempt.ended_s - attempt.begun_s for attempt in good) * 1000


@contextmanager
def asking(balancer: LoadBalancer, folder: Path) -> Iterator[Client]:
    """Ask from the neighbour until the block ends."""
    file = folder / "attempts"
    asker = (str(PROJECT / "bench/asker.py"), ADDRESS, "80", str(EVERY_MS), str(PATIENCE_MS))
    argv = balancer.neighbour.inside(sys.executable, "-I", "-S", *asker)
    with file.open("w") as output, subprocess.Popen(argv, stdout=output) as process:
        try:
            client = Client(file)
            client.wait_served()
            yield client
        finally:
            process.kill()


@pytest.fixture
def held(balancer: LoadBalancer) -> Iterator[LoadBalancer]:
    """Give a load balancer whose port 80 is held; its sentinel has still to be started."""
    hold_listeners(balancer.node)
    yield balancer
    balancer.node.run("systemctl", "stop", "sentinel")
    balancer.node.write(HAPROXY_CFG, haproxy_cfg())
    let_listeners_go(balancer.node)


def holders(balancer: LoadBalancer) -> set[int]:
    """Return the processes that have port 80's socket."""
    lines = balancer.node.run("ss", "-Hltnp", "( sport = :80 )").stdout
    return {int(part.partition(",")[0]) for part in lines.split("pid=")[1:]}


def assert_good(balancer: LoadBalancer) -> None:
    """All is well, and port 80 is systemd's, the master's and the worker's, and nobody else's."""
    status = balancer.status()
    assert status["overall"] == "healthy", status
    assert (balancer.lease(), balancer.track(), balancer.hook()) == ("OK", "0", 0)
    haproxy = status["haproxy"]
    assert balancer.haproxy_pids() == {haproxy["master_pid"], haproxy["worker_pid"]}
    assert holders(balancer) == {1, haproxy["master_pid"], haproxy["worker_pid"]}


def lost_after(client: Client, moment_s: float) -> list[Attempt]:
    """Return the failed attempts that HAProxy cannot have accepted before *moment_s*."""
    return [attempt for attempt in client.failed() if attempt.begun_s > moment_s]


@on_every_suite
def test_killed(held: LoadBalancer, tmp_path: Path) -> None:
    """Only what was in flight is lost: everybody else waits for the next HAProxy."""
    held.supervise()
    assert_good(held)
    before = held.haproxy_pids()

    with asking(held, tmp_path) as client:
        held.signal_haproxy("KILL")
        wait_until(lambda: not before & held.haproxy_pids(), "all are dead")
        dead_s = time.monotonic()
        held.wait_mended(1)
        client.wait_served()

    held.notes.append(f"held, kill -9: {len(client.failed())} in flight failed, "
                      f"slowest answer {client.slowest_ms():.0f} ms")  # fmt: skip
    assert lost_after(client, dead_s) == []
    assert "ECONNREFUSED" not in {attempt.how for attempt in client.failed()}
    assert held.status()["restarts"]["used"] <= 1
    assert_good(held)


@on_every_suite
def test_hung(held: LoadBalancer, tmp_path: Path) -> None:
    """The kernel queues for a hung HAProxy; once it is killed, the next one has the whole queue."""
    held.supervise()
    before = held.haproxy_pids()

    with asking(held, tmp_path) as client:
        held.signal_haproxy("STOP")
        stopped_s = time.monotonic()
        held.wait_mended(1)
        client.wait_served()

    held.notes.append(f"held, SIGSTOP: {len(client.failed())} in flight failed, "
                      f"slowest answer {client.slowest_ms():.0f} ms")  # fmt: skip
    assert not before & held.haproxy_pids()
    assert lost_after(client, stopped_s) == []
    assert "ECONNREFUSED" not in {attempt.how for attempt in client.failed()}
    assert held.wait_event("haproxy.hung")["reason"] == "worker is stopped and does not answer"
    assert_good(held)


@on_every_suite
def test_reload_and_restart_by_hand(held: LoadBalancer, tmp_path: Path) -> None:
    """A reload loses nothing at all; a restart what was in flight, and refuses nobody."""
    held.supervise()

    with asking(held, tmp_path) as client:
        held.node.run("systemctl", "reload", "haproxy")
        held.wait_mended(1)
        client.wait_served()
        assert client.failed() == []
        assert held.phases() == ["UP"]
        incarnation = held.status()["haproxy"]["incarnation"]
        wait_until(lambda: len(held.haproxy_pids()) == 2, "the old worker has gone")
        assert_good(held)

        held.node.run("systemctl", "restart", "haproxy")
        restarted_s = time.monotonic()
        held.wait_mended(incarnation)
        client.wait_served()

    assert lost_after(client, restarted_s) == []
    assert "ECONNREFUSED" not in {attempt.how for attempt in client.failed()}
    assert_good(held)


@on_every_suite
def test_stopped_by_hand(held: LoadBalancer, tmp_path: Path) -> None:
    """A stop closes the sockets and stays a stop, though clients knock all the time."""
    held.supervise()

    with asking(held, tmp_path) as client:
        held.node.run("systemctl", "stop", "haproxy")
        held.wait_phase("MAINT")
        stopped_s = time.monotonic()
        wait_until(lambda: held.status()["phase_age_ms"] > SEVERAL_LOOKS_MS, "several looks")
        assert held.phase() == "MAINT"
        assert held.haproxy_pids() == set()
        told = {attempt.how for attempt in lost_after(client, stopped_s)}
        assert told == {"ECONNREFUSED"}
        held.node.run("systemctl", "start", "haproxy")
        held.wait_mended(1)
        client.wait_served()

    assert held.status()["restarts"]["used"] == 0
    assert_good(held)


@on_every_suite
def test_a_connection_starts_nothing(held: LoadBalancer, tmp_path: Path) -> None:
    """Sockets without a HAProxy let connections wait, and never start what was stopped."""
    held.supervise()
    held.node.run("systemctl", "stop", "haproxy")
    held.wait_phase("MAINT")
    held.node.run("systemctl", "start", "haproxy.socket")

    path = tmp_path / "attempts"
    asker = (str(PROJECT / "bench/asker.py"), ADDRESS, "80", str(EVERY_MS), str(PATIENCE_MS))
    argv = held.neighbour.inside(sys.executable, "-I", "-S", *asker)
    with path.open("w") as output, subprocess.Popen(argv, stdout=output) as process:
        try:
            held.node.wait_until("systemctl is-active --quiet haproxy-held")
            wait_until(lambda: held.status()["phase_age_ms"] > SEVERAL_LOOKS_MS, "several looks")
            assert (held.phase(), held.haproxy_pids()) == ("MAINT", set())
            assert Client(path).attempts() == []
            held.node.run("systemctl", "start", "haproxy")
            held.wait_mended(1)
            Client(path).wait_served()
        finally:
            process.kill()

    assert Client(path).failed() == []
    assert_good(held)


def test_start_limit(held: LoadBalancer) -> None:
    """At systemd's start limit the sockets close; a mended configuration opens them again."""
    held.supervise()
    good = held.node.read(HAPROXY_CFG)
    held.node.write(HAPROXY_CFG, f"{good}\nnonsense\n")
    wait_until(lambda: held.status()["overall"] != "healthy", "the broken file is seen")

    held.signal_haproxy("KILL")
    held.node.wait_until("systemctl show -P Result haproxy.socket | grep -q start-limit-hit")
    held.wait_lease("FAIL")
    assert holders(held) == set()

    held.node.write(HAPROXY_CFG, good)
    held.wait_mended(1)
    assert_good(held)


@on_every_suite
def test_descriptor_without_a_variable(held: LoadBalancer) -> None:
    """``bind fd@3`` as it stands: sentinel's check of the configuration has such a descriptor."""
    literal = held.node.read(HAPROXY_CFG).replace(BIND, "fd@3")
    assert "bind fd@3" in literal
    held.node.write(HAPROXY_CFG, literal)
    held.node.run("systemctl", "restart", "haproxy")
    held.supervise()
    assert_good(held)

    held.node.write(HAPROXY_CFG, literal.replace("fd@3", "fd@4"))
    wait_until(lambda: held.status()["overall"] != "healthy", "nobody hands over a second socket")
    assert "descriptor '4'" in held.wait_event("configuration.invalid")["reason"]
    held.node.write(HAPROXY_CFG, literal)
    held.wait_overall("healthy")
