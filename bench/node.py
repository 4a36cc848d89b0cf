"""One systemd node of the tests' lab, with HAProxy and sentinel installed as the README says.

It needs root, and makes the lab's image at its first use (a minute and a half).
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).parents[1]
sys.path.append(str(PROJECT / "tests"))

from client import Client, asking, wait_until  # noqa: E402
from lab.fixtures import why_no_lab  # noqa: E402  (the lab is the tests')
from lab.held import hold_listeners, let_listeners_go  # noqa: E402
from lab.image import held_image, lab_folder, project_recipe  # noqa: E402
from lab.installation import install_sentinel  # noqa: E402
from lab.network import Switch  # noqa: E402
from lab.node import Node  # noqa: E402
from lab.traces import hierarchies, init_pid, sweep  # noqa: E402
from report import Report, arguments, conclude  # noqa: E402

#: The master's of the pairs in contrib/keepalived.
ADDRESS: Final = "192.168.1.189/24"
PORT: Final = 80
#: Debian's own haproxy.cfg in all that matters to a start, and one frontend that answers by itself.
HAPROXY_CFG: Final = f"""\
global
    log /dev/log local0
    chroot /var/lib/haproxy
    stats socket /run/haproxy/admin.sock mode 660 level admin
    stats timeout 30s
    user haproxy
    group haproxy
    maxconn {{maxconn}}
defaults
    log global
    mode http
    option httplog
    option dontlognull
    option dontlog-normal
    timeout connect 5s
    timeout client 20m
    timeout server 50s
frontend web
    bind :{PORT}
    http-request return status 200 content-type text/plain string ok
"""
MEMORY: Final = "/run/sentinel/memory.json"
_DROP_IN: Final = "haproxy.service.d/sentinel.conf"
#: Long enough for every check to have run several times since sentinel's start.
SETTLE_S: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the two files say that keepalived reads."""

    lease: str
    track: str

    @property
    def yields(self) -> bool:
        """Both say that this node may not hold the VIP."""
        return self.lease.startswith("FAIL ") and self.track == "1\n"

    @property
    def serves(self) -> bool:
        """Both say that it may."""
        return self.lease.startswith("OK ") and self.track == "0\n"


class Files:
    """Reads lease and track file from outside the node, at the cost of two opens."""

    def __init__(self, node: Node) -> None:
        self.folder: Final = Path(f"/proc/{init_pid(node.name)}/root/run/sentinel")
        self._lease, self._track = self.folder / "lease", self.folder / "track"

    def read(self) -> Told:
        """Return what the files say now; empty before sentinel's first start."""
        lease = self._lease.read_text() if self._lease.exists() else ""
        return Told(lease=lease, track=self._track.read_text())


@contextmanager
def lab_node(maxconn: int = 2000) -> Iterator[Node]:
    """Boot a node on a switch of its own and install everything; nothing is started.

    Exits when there can be no lab.
    """
    if reason := why_no_lab():
        sys.exit(f"{sys.argv[0]}: {reason}")
    sweep()
    with (
        held_image(lab_folder(), project_recipe()) as image,
        Switch() as switch,
        Node(image) as node,
    ):
        switch.connect(node.network, ADDRESS)
        node.power_on()
        install_sentinel(node)
        node.write("/etc/haproxy/haproxy.cfg", HAPROXY_CFG.format(maxconn=maxconn))
        yield node


def haproxy_pids(node: Node) -> list[int]:
    """Return the host's pids of all processes of haproxy.service, oldest first."""
    unit = hierarchies()[0] / node.name / "payload/system.slice/haproxy.service/cgroup.procs"
    return sorted(map(int, unit.read_text().split()))


def signal_haproxy(node: Node, number: signal.Signals) -> None:
    """Send a signal to all processes of haproxy.service at once, master first."""
    for pid in haproxy_pids(node):
        with suppress(ProcessLookupError):  # a worker dies of its master's death
            os.kill(pid, number)


def systemd_alone(node: Node) -> None:
    """Leave HAProxy to Debian's unit as the package brings it: no sentinel, no drop-in of ours."""
    node.run("systemctl", "stop", "sentinel")
    node.run("rm", "-f", f"/etc/systemd/system/{_DROP_IN}")
    _restart_haproxy(node)


def with_sentinel(node: Node) -> None:
    """Give HAProxy to sentinel as shipped, as after a quiet minute: its restart budget is whole."""
    node.run("systemctl", "stop", "sentinel")
    drop_in = (PROJECT / "systemd" / _DROP_IN).read_text()
    node.write(f"/etc/systemd/system/{_DROP_IN}", drop_in)
    _restart_haproxy(node)
    node.run("rm", "-f", MEMORY)
    node.run("systemctl", "start", "sentinel", timeout_s=30.0)
    wait_until(lambda: Files(node).read().serves, "sentinel finds HAProxy serving")


def held_listeners(node: Node) -> None:
    """Let systemd hold HAProxy's listeners, by the README's commands."""
    node.run("systemctl", "stop", "sentinel")
    hold_listeners(node)


def plain_listeners(node: Node) -> None:
    """Let HAProxy bind its own listeners, by the README's commands for going back."""
    held_listeners(node)
    let_listeners_go(node)


def _restart_haproxy(node: Node) -> None:
    """Restart HAProxy with a fresh start limit of systemd's."""
    node.run("systemctl", "daemon-reload")
    node.run("systemctl", "reset-failed")
    node.run("systemctl", "restart", "haproxy", timeout_s=30.0)


#: Brings a node into the state in which a fault is to meet it.
Preparation = Callable[[Node], None]


def bench(
    doc: str | None,
    measure: Callable[[Node, Client, int], dict[str, list[float]]],
    conclusion: Callable[[dict[str, list[float]], int], Report],
    *pace_ms: str,
) -> int:
    """Measure on a node that a client asks all the time at this pace; print, judge, exit status."""
    parser = arguments(doc)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--journal", action="store_true", help="print what was logged")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, lab_node() as node:
        node.run("systemctl", "start", "haproxy")
        with asking(node.network.inside, PORT, Path(folder), *pace_ms) as client:
            samples = measure(node, client, options.runs)
        if options.journal:
            command = "journalctl --no-pager -o short-precise -u sentinel -u haproxy"
            print(node.run(*command.split()).stdout)
    return conclude(conclusion(samples, options.runs), options.json)
