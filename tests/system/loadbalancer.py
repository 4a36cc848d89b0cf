"""A load balancer as the README makes one: sentinel, HAProxy, keepalived and rsyslog under systemd.

- All files are the shipped ones, unmodified but for HAProxy's maxconn (a machine may not grant the
  open files that 20,000 connections want). The node is the master of the fast pair, its peer is
  missing, and its neighbour on the wire is both the second web server and the client.
- It is booted once and used by many tests; ``reset`` brings it back to a known good state.
- What is asked again and again (status, lease, events) is read from the host, without a process.
"""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from haproxies import wait_until
from lab.traces import init_pid
from system.shipped import (
    FRONTENDS,
    HOOK,
    QUICK,
    RESET,
    SENTINEL_TOML,
    VIP,
    haproxy_cfg,
)

from sentinel.commands.client import NoAnswerError, ask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.network import Namespace
    from lab.node import Node


#: HAProxy's configuration where nothing else is said.
HAPROXY: Final = haproxy_cfg()


class LoadBalancer:
    """One running load balancer and its neighbour on the wire."""

    def __init__(self, node: Node, neighbour: Namespace, haproxy_cfg: str = HAPROXY) -> None:
        self.node: Final = node
        self.neighbour: Final = neighbour
        self.haproxy_cfg: Final = haproxy_cfg
        self.notes: list[str] = []
        self._since_s = 0.0
        self._well_s = 0.0

    # --- preparing ------------------------------------------------------------------------------

    def since_now(self) -> None:
        """Take no notice of what has been logged before."""
        self._since_s = self._well_s = _now_s()

    def reset(self) -> None:
        """Bring all back to a good state: HAProxy and keepalived run, sentinel does not."""
        self.notes.clear()
        self.since_now()
        self.node.run("sh", "-c", RESET, stdin=self.haproxy_cfg, timeout_s=60.0)

    def supervise(self, configuration: str | None = QUICK, overall: str = "healthy") -> None:
        """Start sentinel and wait until it calls the node *overall*; None is no file at all."""
        self.start_sentinel(configuration)
        self.wait_overall(overall)
        if overall == "healthy":
            self.wait_all_seen()
            self.wait_vip()
        self.all_is_well()

    def start_sentinel(self, configuration: str | None = QUICK) -> None:
        """Start sentinel; None is no configuration file at all."""
        self.since_now()
        if configuration is not None:
            self.node.write(SENTINEL_TOML, configuration)
        self.node.run("systemctl", "start", "sentinel", timeout_s=40.0)

    def all_is_well(self) -> None:
        """Take no notice of the VRRP states that keepalived has entered before."""
        self._well_s = _now_s()

    def drop_in(self, unit: str, settings: str) -> None:
        """Change settings of a unit's [Service] until the next reset."""
        path = f"/run/systemd/system/{unit}.service.d/test.conf"
        self.node.write(path, f"[Service]\n{settings}\n")
        self.node.run("systemctl", "daemon-reload")

    def start(self, name: str, *argv: str) -> None:
        """Run a program in the background until the next reset."""
        self.node.run("systemd-run", "--quiet", f"--unit=test-{name}", *argv)

    # --- doing ----------------------------------------------------------------------------------

    def signal_haproxy(self, name: str, which: str = "all") -> None:
        """Send a signal to HAProxy's processes: all, master or worker.

        By their pids: by name it would reach sentinel's own ``haproxy -c``.
        """
        pids = self.haproxy_pids()
        if which != "all":
            pids = {self.status()["haproxy"][f"{which}_pid"]}
        # one of them may be dead of the other's death before its turn comes
        self.node.run("kill", f"-{name}", *map(str, pids), check=False)

    def signal_sentinel(self, name: str) -> None:
        """Send a signal to sentinel's main process."""
        self.node.run("kill", f"-{name}", self.node.unit("sentinel")["MainPID"])

    def kill_keepalived(self) -> None:
        """Kill all of it at once: the child first, or it would clean up when its parent dies."""
        pids = self.node.run("pidof", "keepalived").stdout.split()
        self.node.run("kill", "-KILL", *sorted(pids, key=int, reverse=True))

    # --- seeing ---------------------------------------------------------------------------------

    def run_path(self, name: str) -> Path:
        """Return the way from the host to a file of the node's /run/sentinel."""
        return Path(f"/proc/{init_pid(self.node.name)}/root/run/sentinel", name)

    def status(self) -> dict[str, Any]:
        """Return what ``sentinel status --json`` prints; raises NoAnswerError without a daemon."""
        return ask(str(self.run_path("status.sock")))

    def phase(self) -> str:
        """Return where sentinel stands with HAProxy, empty while it does not answer."""
        try:
            return str(self.status()["phase"])
        except NoAnswerError:
            return ""

    def lease(self) -> str:
        """Return the lease's word, OK or FAIL, or empty when there is none."""
        try:
            return self.run_path("lease").read_text().partition(" ")[0]
        except FileNotFoundError:
            return ""

    def track(self) -> str:
        """Return what the track file says."""
        return self.run_path("track").read_text().strip()

    def hook(self) -> int:
        """Return the hook's exit code; this call leaves no sign that keepalived had called."""
        argv = (HOOK, "/run/sentinel/lease", "/run/haproxy.pid", "/run/no-sign")
        return self.node.run(*argv, check=False).returncode

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """Return what sentinel has logged since ``supervise``, as rsyslog wrote it."""
        path = self.node.root / "var/log/sentinel.json"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        events = [json.loads(line) for line in lines if line.endswith("\n")]
        return [
            event
            for event in events
            if when(event) >= self._since_s - 0.001 and name in {"", event["event"]}
        ]

    def names(self) -> list[str]:
        """Return the names of the events, in their order."""
        return [event["event"] for event in self.events()]

    def phases(self) -> list[str]:
        """Return the phases that sentinel went through, in their order."""
        return [event["to"] for event in self.events("phase.changed")]

    def has_vip(self) -> bool:
        """Tell whether the VIP is on the interface."""
        return f" {VIP}/32 " in self.node.network.ip("-o", "address", "show", "dev", "eth0")

    def answers(self, path: str = "/") -> bool:
        """Tell whether the neighbour gets an answer from the VIP."""
        curl = ("curl", "--silent", "--fail", "--max-time", "2", "--output", "/dev/null")
        return self.neighbour.run(*curl, f"http://{VIP}{path}", check=False).returncode == 0

    def haproxy_pids(self) -> set[int]:
        """Return HAProxy's living processes; one that only checks a configuration is none.

        The arguments of one that is ending are gone: ps shows its name in brackets.
        """
        lines = self.node.run("ps", "-C", "haproxy", "-o", "pid=,args=", check=False).stdout
        processes = [line.split() for line in lines.splitlines()]
        return {
            int(pid)
            for pid, program, *arguments in processes
            if not program.startswith("[") and "-c" not in arguments
        }

    def listener_pids(self) -> set[int]:
        """Return the processes that hold HAProxy's TCP listeners."""
        lines = self.node.run("ss", "-Hltnp", "( sport = :80 or sport = :8405 )").stdout
        return {int(part.partition(",")[0]) for part in lines.split("pid=")[1:]}

    def journal(self) -> str:
        """Return what everybody has said since ``supervise``."""
        argv = ("journalctl", "--quiet", "--no-pager", f"--since=@{self._since_s:.6f}")
        return self.node.run(*argv).stdout

    def keepalived_states(self) -> list[str]:
        """Return the VRRP states that keepalived has entered since all was well."""
        argv = ("journalctl", "--quiet", "--no-pager", "--output=cat", "--unit=keepalived")
        lines = self.node.run(*argv, f"--since=@{self._well_s:.6f}").stdout.splitlines()
        return [line.split()[-2] for line in lines if line.endswith(" STATE")]

    # --- waiting --------------------------------------------------------------------------------

    def wait_overall(self, word: str, timeout_s: float = 30.0) -> None:
        """Wait until status calls the node *word*."""

        def is_so() -> bool:
            try:
                return bool(self.status()["overall"] == word)
            except NoAnswerError:
                return False

        wait_until(is_so, f"status says {word}", timeout_s)

    def wait_all_seen(self) -> None:
        """Wait until every check passes."""
        wait_until(self._all_seen, "every check passes")

    def _all_seen(self) -> bool:
        checks = self.status()["checks"]
        passing = {check["name"] for check in checks if check["verdict"] == "PASS"}
        return passing >= FRONTENDS and len(passing) == len(checks)

    def wait_phase(self, phase: str, timeout_s: float = 30.0) -> None:
        """Wait until sentinel is in *phase*."""
        wait_until(lambda: self.phase() == phase, f"phase {phase}", timeout_s)

    def wait_event(self, name: str, count: int = 1, timeout_s: float = 20.0) -> dict[str, Any]:
        """Wait until *count* such events have been logged and return the last of them."""
        what = f"event {name}, {count} times"
        wait_until(lambda: len(self.events(name)) >= count, what, timeout_s)
        return self.events(name)[count - 1]

    def wait_lease(self, word: str, timeout_s: float = 10.0) -> None:
        """Wait until the lease says *word*."""
        wait_until(lambda: self.lease() == word, f"lease {word}", timeout_s)

    def wait_vip(self, timeout_s: float = 20.0) -> None:
        """Wait until the VIP is here and HAProxy answers on it."""
        wait_until(lambda: self.has_vip() and self.answers(), "the VIP answers", timeout_s)

    def wait_no_vip(self, timeout_s: float = 10.0) -> None:
        """Wait until the VIP is not here."""
        wait_until(lambda: not self.has_vip(), "the VIP has gone", timeout_s)

    def wait_mended(self, incarnation: int, timeout_s: float = 30.0) -> None:
        """Wait until another incarnation than *incarnation* is UP, healthy, and has the VIP."""

        def mended() -> bool:
            status = self.status()
            if status["haproxy"]["incarnation"] <= incarnation:
                return False
            return (status["phase"], status["overall"]) == ("UP", "healthy")

        wait_until(mended, "a new HAProxy is healthy", timeout_s)
        self.wait_vip()

    @contextmanager
    def lease_words(self) -> Iterator[set[str]]:
        """Collect every word that the lease says during the block."""
        seen: set[str] = set()
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.002):
                seen.add(self.lease())

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield seen
        finally:
            done.set()
            watcher.join()

    @contextmanager
    def timed(self, fault: str) -> Iterator[None]:
        """Note how long after the beginning of the block sentinel yielded and served again.

        The block ends when all is well; the times are those of sentinel's own events.
        """
        began_s = _now_s()
        yield
        events = [event for event in self.events("phase.changed") if when(event) >= began_s]
        yielded = [when(event) - began_s for event in events if event["from"] == "UP"]
        served = [when(event) - began_s for event in events if event["to"] in {"UP", "HOLDING"}]
        words = (
            f"{name} {times[0]:.2f} s"
            for name, times in (("yield", yielded), ("serve", served))
            if times
        )
        self.notes.append(f"{fault}: {', '.join(words)}")

    # --- what must hold in the end --------------------------------------------------------------

    def assert_one_haproxy(self) -> None:
        """One HAProxy runs, it is systemd's, and its worker alone holds the listeners."""
        haproxy, pids = self.status()["haproxy"], self.haproxy_pids()
        main, listeners = int(self.node.unit("haproxy")["MainPID"]), self.listener_pids()
        master, worker = haproxy["master_pid"], haproxy["worker_pid"]
        assert pids == {master, worker}, (pids, master, worker)
        assert (main, listeners) == (master, {worker}), (main, listeners, master, worker)

    def assert_good(self) -> None:
        """Node, hook, lease and track file say the same: all is well."""
        status, told = self.status(), (self.lease(), self.track(), self.hook())
        assert status["overall"] == "healthy", status
        assert told == ("OK", "0", 0), told
        self.assert_one_haproxy()


def _now_s() -> float:
    return datetime.now(UTC).timestamp()


def when(event: dict[str, Any]) -> float:
    """Return the time of an event in seconds since the epoch."""
    return datetime.fromisoformat(event["time"]).timestamp()
