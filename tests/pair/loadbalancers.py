"""A pair of load balancers as the README makes one, on a switch, with web servers and a client.

- All files are the shipped ones; the addresses of the nodes and the VIP are those written there.
  The web servers have addresses of their own, so that they outlive a node.
- Both nodes are used by many tests; ``reset`` brings them back to a known good state.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from haproxies import wait_until
from lab.installation import install_sentinel
from lab.network import Namespace, Switch
from lab.node import Node
from pair.client import Client, asking
from system.boot import lengthen_queues
from system.loadbalancer import LoadBalancer
from system.shipped import (
    ADDRESS,
    KEEPALIVED_CONF,
    NEIGHBOUR,
    QUICK,
    SENTINEL,
    haproxy_cfg,
    keepalived_conf,
)

from sentinel.commands.client import NoAnswerError
from sentinel.drill import standins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLIENT: Final = "192.168.1.10"
WEB_SERVERS: Final = ("192.168.1.201", "192.168.1.202")
UNITS: Final = ("haproxy", "keepalived", "sentinel")
#: How long a command may wait for the VIP to move, and a bit.
MOVE_S: Final = 25.0


class Pair:
    """Two running load balancers: the master holds the VIP when all is well."""

    def __init__(
        self, master: LoadBalancer, backup: LoadBalancer, switch: Switch, client: Namespace
    ) -> None:
        self.master: Final = master
        self.backup: Final = backup
        self.both: Final = (master, backup)
        self.switch: Final = switch
        self.notes: list[str] = []
        self._client: Final = client
        self._kind = ""

    # --- preparing ------------------------------------------------------------------------------

    def reset(self, kind: str) -> None:
        """Bring both back to a good state, as a pair of this *kind*; sentinel does not run."""
        self.notes.clear()
        self.switch.keep_multicast(self.backup.node.network, kept=False)
        for balancer in self.both:
            if not balancer.node.is_on:
                balancer.node.power_on()
        if kind != self._kind:
            self._kind = ""
            for balancer, role in zip(self.both, ("master", "backup"), strict=True):
                balancer.node.run("systemctl", "stop", "keepalived")
                balancer.node.write(KEEPALIVED_CONF, keepalived_conf(kind, role))
        self.each(LoadBalancer.reset)
        self._kind = kind

    def supervise(self, *configurations: str) -> None:
        """Start sentinel on both nodes and wait until all is well: QUICK, or one for each."""
        told = configurations or (QUICK, QUICK)
        for balancer, configuration in zip(self.both, told, strict=True):
            balancer.start_sentinel(configuration)
        self.wait_good()
        for balancer in self.both:
            balancer.all_is_well()

    def since_now(self) -> None:
        """Take no notice of what has been logged before."""
        for balancer in self.both:
            balancer.since_now()

    @staticmethod
    def order(balancer: LoadBalancer, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of sentinel's that may wait for the VIP to move."""
        return balancer.node.run(SENTINEL, *words, check=False, timeout_s=MOVE_S)

    def each(self, do: Callable[[LoadBalancer], object]) -> None:
        """Do something to both nodes at the same time."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(do, self.both))

    # --- seeing ---------------------------------------------------------------------------------

    @contextmanager
    def asked(self, fault: str) -> Iterator[Client]:
        """Ask the VIP all the time; the block ends when the client is content again."""
        with TemporaryDirectory() as folder, asking(self._client, Path(folder)) as client:
            try:
                yield client
                client.wait_content()
            finally:
                self.notes.append(f"{fault} ({self._kind} pair): {client}")

    def holders(self) -> tuple[LoadBalancer, ...]:
        """Return who has the VIP on an interface."""
        return tuple(balancer for balancer in self.both if balancer.has_vip())

    def journal(self) -> str:
        """Return what everybody has said since ``supervise``."""
        return "".join(
            f"--- {balancer.node.hostname}\n{balancer.journal()}"
            for balancer in self.both
            if balancer.node.is_on
        )

    # --- waiting --------------------------------------------------------------------------------

    def wait_holder(self, balancer: LoadBalancer, timeout_s: float = 20.0) -> None:
        """Wait until *balancer* alone has the VIP, and a client is answered on it."""
        what = f"{balancer.node.hostname} alone has the VIP and serves"
        wait_until(lambda: self.holders() == (balancer,) and balancer.answers(), what, timeout_s)

    def wait_good(self) -> None:
        """Wait until both are healthy, see everything pass, and the master alone has the VIP."""
        self.wait_holder(self.master)
        for balancer in self.both:
            balancer.wait_overall("healthy")
            balancer.wait_all_seen()
            balancer.wait_overall("healthy")  # what passes has still to rise
            balancer.assert_good()
        self.wait_claims("MASTER", "BACKUP")
        self.wait_holder(self.master)

    def wait_claims(self, *states: str) -> None:
        """Wait until status tells these VRRP states of the two nodes, and the VIPs that fit."""
        seen = [(state, state == "MASTER") for state in states]
        wait_until(lambda: [claim(b) for b in self.both] == seen, f"status tells {states}")


def claim(balancer: LoadBalancer) -> tuple[str, bool]:
    """Return what status says of the one instance: its state, and whether its VIP is here."""
    with suppress(NoAnswerError):
        for instance in balancer.status()["vrrp"]:
            return instance["state"], all(vip["present"] for vip in instance["vips"])
    return "", False


def moves(balancer: LoadBalancer) -> list[tuple[Any, ...]]:
    """Return the changes of VRRP state and of the VIP that a node has logged, in their order."""
    told = {"vrrp.changed": "to", "vip.arrived": "vip", "vip.left": "vip"}
    events = (event for event in balancer.events() if event["event"] in told)
    return [(event["event"], event[told[event["event"]]]) for event in events]


@contextmanager
def running_pair(image: Path) -> Iterator[Pair]:
    """Boot two load balancers and all that is around them, and lay the cables."""
    with ExitStack() as stack:
        nodes = [stack.enter_context(Node(image, name)) for name in ("lb1", "lb2")]
        client, web = (stack.enter_context(Namespace()) for _ in range(2))
        switch = stack.enter_context(Switch())
        for node, address in zip(nodes, (ADDRESS, NEIGHBOUR), strict=True):
            lengthen_queues(node)
            node.power_on()  # in this thread: what it starts would die with another
            switch.connect(node.network, f"{address}/24")
        switch.connect(client, f"{CLIENT}/24")
        switch.connect(web, f"{WEB_SERVERS[0]}/24")
        web.ip("address", "add", f"{WEB_SERVERS[1]}/24", "dev", "eth0")
        _serve_web(stack, web)
        configuration = haproxy_cfg(*WEB_SERVERS)
        master, backup = (LoadBalancer(node, client, configuration) for node in nodes)
        pair = Pair(master, backup, switch, client)
        pair.each(_set_up)
        yield pair


def _serve_web(stack: ExitStack, web: Namespace) -> None:
    """Let all web servers answer, until the stack is unwound."""
    places = [f"{address}:81" for address in WEB_SERVERS]
    argv = web.inside(sys.executable, "-m", standins.__name__, "web", *places)
    servers = subprocess.Popen(
        ("setpriv", "--pdeathsig", "KILL", "--", *argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    stack.enter_context(servers)
    stack.callback(servers.kill)
    assert servers.stdout is not None
    assert servers.stdout.readline() == b"ready\n", "the web servers listen"


def _set_up(balancer: LoadBalancer) -> None:
    """Put everything in place that no test changes; all units come up at a boot."""
    install_sentinel(balancer.node)
    balancer.node.run("systemctl", "enable", *UNITS)
