"""Whether sentinel leaves a HAProxy alone that is full and slow but healthy.

    python bench/saturated.py [--minutes 1] [--json FILE] [--journal]

One node under a real systemd, with sentinel and keepalived (contrib/keepalived/fast/master.conf) as
shipped. HAProxy admits 100 connections; 130 guests want in (``crowd.py``), and one busy loop for
each CPU runs in the node as a service like any other. Counted are the yields (lease, track file,
VIP), the restarts and what sentinel logged, until ten seconds after the crowd has left. Beside it
the usual check is run, a curl every second: two failures in a row would have cost the VIP. Exit 1
when sentinel has raised a single false alarm.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from client import wait_until
from node import PORT, PROJECT, Files, lab_node, with_sentinel
from report import Report, Target, arguments, conclude

if TYPE_CHECKING:
    from lab.node import Node

CROWD: Final = Path(__file__).parent / "crowd.py"
KEEPALIVED_CONF: Final = PROJECT / "contrib/keepalived/fast/master.conf"
VIP: Final = "192.168.1.99"
MAXCONN: Final = 100
GUESTS: Final = 130
POLL_S: Final = 0.02
AFTERMATH_S: Final = 10.0
#: What sentinel may say of a HAProxy that is full.
EXPECTED: Final = frozenset({"haproxy.saturated", "haproxy.unsaturated"})
CURL: Final = ("curl", "-s", "-f", "-m", "1", "-o", "/dev/null", f"http://127.0.0.1:{PORT}/")


@dataclass(slots=True)
class Curl:
    """The usual vrrp_script: a curl every second, down after two failures in a row."""

    node: Node
    failures: int = 0
    yields: int = 0
    _row: int = 0
    _due_s: float = 0.0
    _process: subprocess.Popen[bytes] | None = None

    def poll(self) -> None:
        """Take note of the last one, and begin the next when it is time."""
        if self._process is None:
            if time.monotonic() >= self._due_s:
                self._due_s = time.monotonic() + 1.0
                self._process = subprocess.Popen(self.node.network.inside(*CURL))
        elif self._process.poll() is not None:
            failed = self._process.returncode != 0
            self._process = None
            self._row = self._row + 1 if failed else 0
            self.failures += failed
            self.yields += self._row == 2

    def close(self) -> None:
        """Wait for the last one."""
        if self._process is not None:
            self._process.wait()


@dataclass(slots=True)
class Seen:
    """What was seen from outside the node."""

    yields: int = 0
    lease_left_s: list[float] = field(default_factory=list)
    connections: list[float] = field(default_factory=list)
    idle: float = 0.0
    _serves: bool = True

    def look(self, files: Files) -> None:
        """Read lease and track file once."""
        told = files.read()
        self.yields += self._serves and not told.serves
        self._serves = told.serves
        left_s = int(told.lease.split()[1]) / 100 - time.clock_gettime(time.CLOCK_BOOTTIME)
        self.lease_left_s.append(left_s)


def watch(node: Node, seen: Seen, curl: Curl, seconds: float, *, crowded: bool) -> None:
    """Look at everything for so long."""
    files, admin = Files(node), Files(node).folder.parent / "haproxy/admin.sock"
    ends_s, asked_s = time.monotonic() + seconds, 0.0
    before = processor_times()
    while time.monotonic() < ends_s:
        seen.look(files)
        curl.poll()
        if crowded and time.monotonic() - asked_s >= 1.0:
            asked_s = time.monotonic()
            with suppress(OSError, ValueError):  # a HAProxy that is being restarted
                seen.connections.append(connections(admin))
        time.sleep(POLL_S)
    if crowded:
        spent = [after - at for at, after in zip(before, processor_times(), strict=True)]
        seen.idle = spent[3] / sum(spent)


def connections(admin: Path) -> int:
    """Return CurrConns of HAProxy's ``show info``."""
    with closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.settimeout(20.0)
        sock.connect(str(admin))
        sock.sendall(b"show info\n")
        reply = b"".join(iter(lambda: sock.recv(65536), b"")).decode()
    (line,) = (line for line in reply.splitlines() if line.startswith("CurrConns: "))
    return int(line.split()[1])


def processor_times() -> list[int]:
    """Return the machine's processor times since boot; the fourth one is idle (proc(5), stat)."""
    return [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]


@contextmanager
def crowd(node: Node) -> Iterator[None]:
    """Fill HAProxy and keep every CPU busy until the block ends."""
    loops = [f"busy{number}.service" for number in range(os.cpu_count() or 1)]
    for loop in loops:
        node.run("systemd-run", f"--unit={loop}", "--quiet", "sh", "-c", "while :; do :; done")
    argv = (sys.executable, "-I", "-S", str(CROWD), "127.0.0.1", str(PORT), str(GUESTS))
    process = subprocess.Popen(node.network.inside(*argv))
    try:
        yield
    finally:
        process.kill()
        process.wait()
        node.run("systemctl", "stop", *loops, timeout_s=60.0)


@contextmanager
def vip_changes(node: Node, file: Path) -> Iterator[None]:
    """Write down every change of the node's addresses until the block ends."""
    with file.open("w") as output:
        process = subprocess.Popen(["ip", "-n", node.name, "monitor", "address"], stdout=output)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def events(node: Node) -> list[str]:
    """Return the names of all events sentinel has logged, in order."""
    lines = node.run("journalctl", "--quiet", "-o", "cat", "-t", "sentinel").stdout.splitlines()
    marked = (line.removeprefix("@cee: ") for line in lines if line.startswith("@cee: "))
    return [json.loads(line)["event"] for line in marked]


def restarts(node: Node) -> tuple[str, str]:
    """Return what changes when HAProxy is restarted, by whomever."""
    unit = node.unit("haproxy.service")
    return unit["MainPID"], unit["NRestarts"]


def measure(node: Node, minutes: float, changes: Path) -> Report:
    """Crowd HAProxy and see what comes of it; *changes* is a file to write to."""
    with_sentinel(node)
    node.write("/etc/keepalived/keepalived.conf", KEEPALIVED_CONF.read_text())
    node.run("systemctl", "start", "keepalived", timeout_s=30.0)
    wait_until(lambda: VIP in node.network.ip("address", "show", "eth0"), "the node has the VIP")
    time.sleep(AFTERMATH_S)
    seen, curl, before, said = Seen(), Curl(node), restarts(node), len(events(node))
    with vip_changes(node, changes):
        with crowd(node):
            watch(node, seen, curl, minutes * 60, crowded=True)
        watch(node, seen, curl, AFTERMATH_S, crowded=False)
    curl.close()
    lost = sum(VIP in line for line in changes.read_text().splitlines())
    told = Counter(events(node)[said:])
    restarted = restarts(node) != before
    return conclusion(minutes, seen, curl, (lost, restarted, told))


def conclusion(
    minutes: float, seen: Seen, curl: Curl, found: tuple[int, bool, Counter[str]]
) -> Report:
    """Judge: nothing but silence is right."""
    lost, restarted, told = found
    alarms = {name: count for name, count in told.items() if name not in EXPECTED}
    said = ", ".join(f"{count} {name}" for name, count in sorted(told.items())) or "nothing"
    return Report(
        name="saturated",
        title=f"maxconn full and every CPU busy for {minutes:g} min, default settings",
        header=("", "sentinel", "curl every second"),
        rows=(
            ("yields (lease, track file)", str(seen.yields), str(curl.yields)),
            ("changes of the VIP", str(lost), "-"),
            ("HAProxy restarted", "yes" if restarted else "no", "-"),
            ("false alarms in the log", str(sum(alarms.values())), "-"),
            ("least time left on the lease, s", f"{min(seen.lease_left_s):.2f}", "-"),
            ("failed probes", "-", str(curl.failures)),
        ),
        targets=(
            Target(
                what="yields, changes of the VIP, restarts and false alarms",
                figure=seen.yields + lost + restarted + sum(alarms.values()),
                limit=0,
                unit="",
            ),
        ),
        notes=(
            f"connections: median {median(seen.connections):.0f} of {MAXCONN}",
            f"CPUs idle for {seen.idle:.1%} of the time",
            f"sentinel logged {said}",
        ),
        samples={"lease_left_s": seen.lease_left_s[::50], "connections": seen.connections},
    )


def main() -> int:
    """Measure, print, judge."""
    parser = arguments(__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--journal", action="store_true", help="print what sentinel logged")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, lab_node(maxconn=MAXCONN) as node:
        report = measure(node, options.minutes, Path(folder, "changes"))
        if options.journal:
            print(node.journal("sentinel"))
    return conclude(report, options.json)


if __name__ == "__main__":
    sys.exit(main())
