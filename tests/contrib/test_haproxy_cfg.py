"""The shipped haproxy.cfg, unmodified, in a real HAProxy with its two web servers."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from haproxies import wait_until
from nodes import Node, needs_root, running_node

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG: Final = Path(__file__).parents[2] / "contrib/haproxy/haproxy.cfg"
SERVERS: Final = ("192.168.1.189", "192.168.1.222")
#: Prints the status of one request; nothing when there was no answer.
GET: Final = """
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=2).status)
except urllib.error.HTTPError as error:
    print(error.code)
except OSError:
    pass
"""

pytestmark = [pytest.mark.real, needs_root]


def get(node: Node, url: str) -> str:
    """Return the status of one request made in *node*, or nothing."""
    return node.run(sys.executable, "-c", GET, url).stdout.strip()


def has_begun(log: Path) -> bool:
    """Say whether Python's http.server has written its first line."""
    return "Serving HTTP" in log.read_text()


def ask(node: Node, command: str) -> str:
    """Ask the stats socket of the shipped configuration."""
    with closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.settimeout(2)
        sock.connect(str(node.path("/run/haproxy/admin.sock")))
        sock.sendall(f"{command}\n".encode())
        with sock.makefile() as reply:
            return reply.read()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Give a node with the two web servers, each at its address, and HAProxy before them."""
    folder = tmp_path_factory.mktemp("haproxy")
    with running_node() as node, ExitStack() as stack:
        for address in SERVERS:
            node.run("ip", "address", "add", f"{address}/32", "dev", "lo")
            web = ("-m", "http.server", "--bind", address, "--directory", "/run/sentinel", "81")
            log = folder / f"{address}.log"
            stack.enter_context(node.running(sys.executable, "-u", *web, log=log))
            wait_until(partial(has_begun, log), "a web server listens")
        # maxconn 20000 wants 40,042 open files, which not every machine allows: -n comes first
        haproxy = ("haproxy", "-W", "-n", "2000", "-f", str(CONFIG))
        stack.enter_context(node.running(*haproxy, log=folder / "haproxy.log"))
        wait_until(lambda: get(node, "http://127.0.0.1/") == "200", "HAProxy answers")
        wait_until(lambda: ask(node, "show stat").count(",L7OK,") == 2, "both servers are up")
        yield node


def test_haproxy_accepts_it_without_a_warning() -> None:
    """``-dW`` makes a warning an error."""
    done = subprocess.run(
        ["haproxy", "-c", "-dW", "-f", str(CONFIG)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_it_serves_through_both_servers(node: Node) -> None:
    """A request on port 80 crosses the backend."""
    served = set()
    for _ in range(20):
        assert get(node, "http://127.0.0.1/") == "200"
        rows = [line.split(",") for line in ask(node, "show stat").splitlines()]
        served = {row[1] for row in rows if row[0] == "pool1" and row[7] != "0"}
        if served == {"WEB1", "WEB2", "BACKEND"}:
            return
    pytest.fail(f"20 requests went to {served} alone")


def test_the_probe_frontend_answers(node: Node) -> None:
    """Health, metrics and statistics are on loopback, and the last not on port 80."""
    for path in ("healthz", "metrics", "haproxy-stats"):
        assert get(node, f"http://127.0.0.1:8405/{path}") == "200"
    assert get(node, "http://127.0.0.1/haproxy-stats") == "404"


def test_the_stats_socket_reads_everything_and_changes_nothing(node: Node) -> None:
    """Level operator: what sentinel needs, and no more."""
    assert "Maxconn: 2000" in ask(node, "show info")
    assert "Permission denied" in ask(node, "disable server pool1/WEB1")


def test_healthz_fails_when_no_server_is_left(node: Node) -> None:
    """``monitor fail``: the servers' addresses go away, HAProxy notices, the page says 503."""
    for address in SERVERS:
        node.run("ip", "address", "del", f"{address}/32", "dev", "lo")
    wait_until(lambda: get(node, "http://127.0.0.1:8405/healthz") == "503", "the page says 503")


def test_the_old_spelling_is_really_dead(tmp_path: Path) -> None:
    """What the new file is for: HAProxy refuses the timeouts of the old one."""
    old = tmp_path / "old.cfg"
    old.write_text("defaults\n    contimeout 5000\n    clitimeout 50000\n    srvtimeout 50000\n")
    assert shutil.which("haproxy")
    assert subprocess.run(["haproxy", "-c", "-f", str(old)], check=False).returncode == 1
