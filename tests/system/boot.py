"""Boot load balancers: the Debian releases they run, and the cables between them."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import pytest
from lab.installation import install_sentinel
from lab.network import Namespace, Switch
from lab.node import Node
from system.loadbalancer import LoadBalancer
from system.shipped import ADDRESS, KEEPALIVED_CONF, NEIGHBOUR, WEB_SERVER, keepalived_conf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: The Debian releases that the most important tests run on; the first runs all others, too.
SUITES: Final = tuple(os.environ.get("SENTINEL_LAB_SUITES", "bookworm trixie").split())
on_every_suite = pytest.mark.parametrize("balancer", SUITES, indirect=True)


@contextmanager
def running_load_balancer(image: Path) -> Iterator[LoadBalancer]:
    """Boot a load balancer and lay its cables."""
    with ExitStack() as stack:
        node = stack.enter_context(Node(image))
        neighbour = stack.enter_context(Namespace())
        switch = stack.enter_context(Switch())
        lengthen_queues(node)
        node.power_on()
        switch.connect(node.network, f"{ADDRESS}/24")
        switch.connect(neighbour, f"{NEIGHBOUR}/24")
        folder = stack.enter_context(TemporaryDirectory())
        web_server = neighbour.inside(sys.executable, *WEB_SERVER, folder)
        argv = ("setpriv", "--pdeathsig", "KILL", "--", *web_server)  # it must not outlive us
        quiet = subprocess.DEVNULL
        web2 = subprocess.Popen(argv, stdin=quiet, stdout=quiet, stderr=quiet)
        stack.enter_context(web2)
        stack.callback(web2.kill)
        _set_up(node)
        yield LoadBalancer(node, neighbour)


def lengthen_queues(node: Node) -> None:
    """Do as systemd on a real machine; with 10, journald cannot hand rsyslog a few lines."""
    node.network.run("sh", "-c", "echo 512 >/proc/sys/net/unix/max_dgram_qlen")


def serve_web(node: Node) -> None:
    """Start the first web server, which lives on the load balancer itself, until its shutdown."""
    quiet = ("-p", "StandardOutput=null", "-p", "StandardError=null")
    server = ("python3", *WEB_SERVER, "/var/empty")
    node.run("mkdir", "-p", "/var/empty")
    node.run("systemd-run", "--quiet", "--unit=web1", *quiet, *server)


def _set_up(node: Node) -> None:
    """Put everything in place that no test changes."""
    install_sentinel(node)
    node.write(KEEPALIVED_CONF, keepalived_conf("fast", "master"))
    serve_web(node)
