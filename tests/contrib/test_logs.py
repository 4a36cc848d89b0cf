"""The shipped rsyslog and logrotate files beside the distribution's, really run.

The stock rsyslog.conf is used but for imklog, which would take the machine's own kernel log.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import uuid
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from haproxies import wait_until
from nodes import Node, needs_root, running_node

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROJECT: Final = Path(__file__).parents[2]
CONTRIB: Final = PROJECT / "contrib"
SNIPPETS: Final = (
    CONTRIB / "rsyslog/49-sentinel.conf",
    CONTRIB / "rsyslog/49-sentinel-udp.conf",
)
DEBIANS: Final = Path("/etc/rsyslog.d/49-haproxy.conf")
EVENT: Final = {
    "event": "haproxy.died",
    "reason": 'killed by "SIGKILL" é\n\t\\',
    "gap_s": 0.25,
    "file": "/etc/haproxy/haproxy.cfg",
    "attempt": 1,
    "evidence": {"pids": [41, 42], "worker": None, "stuck": False},
}
TEXT: Final = json.dumps(EVENT, ensure_ascii=False)
#: Debian's rsyslog-rotate calls systemctl on a systemd machine; this is the part of it that counts.
SYSTEMCTL: Final = """#!/bin/sh
[ "$*" = "kill -s HUP rsyslog.service" ] && kill -HUP "$(cat /run/rsyslogd.pid)"
"""

pytestmark = [pytest.mark.real, needs_root]


@dataclass(frozen=True, slots=True, kw_only=True)
class Logging:
    """A node with rsyslogd running, and the ways into it."""

    node: Node
    complaints: Path

    def lines(self, name: str) -> list[str]:
        """Return the lines of one file of /var/log."""
        path = self.node.path(f"/var/log/{name}")
        return path.read_text().splitlines() if path.exists() else []

    def send_unix(self, record: str) -> None:
        """Send one record to /dev/log."""
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock:
            sock.connect(str(self.node.path("/dev/log")))
            sock.send(record.encode())

    def send_udp(self, record: str) -> None:
        """Send one record to UDP 127.0.0.1:514, as HAProxy does."""
        self.node.run("bash", "-c", 'printf %s "$0" >/dev/udp/127.0.0.1/514', record)

    def wait_for(self, name: str, text: str) -> None:
        """Wait until *text* is in a file of /var/log."""
        wait_until(lambda: any(text in line for line in self.lines(name)), f"{text!r} in {name}")

    def settle(self) -> None:
        """Wait until everything sent before has been written: each way in keeps the order."""
        for way, send in (("unix", self.send_unix), ("udp", self.send_udp)):
            mark = f"settled {way} {uuid.uuid4()}"
            send(f"<13>test: {mark}")
            self.wait_for("syslog", mark)


def write_folder(node: Node, target: str, files: Iterable[Path]) -> None:
    """Put a folder holding exactly *files* in the place of *target*."""
    name = f"/run/{target.strip('/').replace('/', '-')}"
    node.path(name).mkdir()
    for file in files:
        shutil.copy(file, node.path(name))
    node.run("mount", "--bind", name, target)


@contextmanager
def running_rsyslogd(snippets: Iterable[Path], folder: Path) -> Iterator[Logging]:
    """Run rsyslogd in a node with exactly *snippets* in /etc/rsyslog.d."""
    with running_node() as node:
        write_folder(node, "/etc/rsyslog.d", snippets)
        stock = Path("/etc/rsyslog.conf").read_text()
        stock = stock.replace('module(load="imklog")', "")
        node.path("/run/rsyslog.conf").write_text(stock)
        log = folder / "rsyslogd.log"
        with node.running("rsyslogd", "-n", "-f", "/run/rsyslog.conf", log=log):
            wait_until(node.path("/dev/log").exists, "rsyslogd listens")
            wait_until(node.path("/var/log/syslog").exists, "rsyslogd writes")
            yield Logging(node=node, complaints=log)


def record(pid: int, text: str) -> str:
    """Return one of sentinel's records: facility local3, severity notice."""
    return f"<157>sentinel[{pid}]: {text}"


def event(pid: int) -> str:
    """Return the record of TEXT, as sentinel's log sends it."""
    return record(pid, f"@cee: {TEXT}")


def admins_udp(folder: Path) -> Path:
    """Return an administrator's snippet that listens on UDP already, in the old spelling."""
    snippet = folder / "10-udp.conf"
    snippet.write_text("$ModLoad imudp\n$UDPServerAddress 127.0.0.1\n$UDPServerRun 514\n")
    return snippet


@pytest.mark.parametrize("neighbour", ["alone", "debians", "admins udp"])
def test_every_line_goes_to_one_file(tmp_path: Path, neighbour: str) -> None:
    """Events as JSON to one file, HAProxy's lines to another, the rest as ever; nothing twice."""
    snippets = [*SNIPPETS]
    if neighbour == "debians":
        snippets.append(DEBIANS)
    if neighbour == "admins udp":
        snippets.append(admins_udp(tmp_path))
    with running_rsyslogd(snippets, tmp_path) as logging:
        for pid, send in ((1, logging.send_unix), (2, logging.send_udp)):
            send(event(pid))
            send(record(pid, "@cee: {torn"))
            send(f"<158>Nov 22 20:00:00 haproxy[{pid}]: Server pool1/WEB1 is DOWN")
            send(f"<30>somebody[{pid}]: else")
            logging.settle()
        assert logging.lines("sentinel.json") == [TEXT] * 2
        (first, second) = logging.lines("haproxy.log")
        assert first.endswith("haproxy[1]: Server pool1/WEB1 is DOWN")
        assert second.endswith("haproxy[2]: Server pool1/WEB1 is DOWN")
        rest = [line.partition(": ") for line in logging.lines("syslog") if "rsyslogd:" not in line]
        assert [text for _, _, text in rest if "settled" not in text] == ["@cee: {torn", "else"] * 2


def test_rsyslogd_has_nothing_to_say_about_the_files(tmp_path: Path) -> None:
    """Beside Debian's own, and with the modes that keep strangers out."""
    with running_rsyslogd([*SNIPPETS, DEBIANS], tmp_path) as logging:
        logging.send_unix(event(1))
        logging.send_unix("<158>haproxy[1]: Proxy http-in started.")
        logging.settle()
        assert logging.complaints.read_text() == ""
        for name in ("sentinel.json", "haproxy.log"):
            found = logging.node.path(f"/var/log/{name}")
            assert (found.stat().st_mode & 0o777, found.group()) == (0o640, "adm")
        logging.node.run("rsyslogd", "-N1", "-f", "/run/rsyslog.conf")  # exit 1 at any complaint


@pytest.mark.parametrize(
    "haproxys", [Path("/etc/logrotate.d/haproxy"), CONTRIB / "logrotate/haproxy"]
)
def test_logrotate_rotates_both_and_rsyslogd_follows(tmp_path: Path, haproxys: Path) -> None:
    """Beside Debian's file for haproxy.log, or ours of the same name where it brings none."""
    rotated = [CONTRIB / "logrotate/sentinel", haproxys, Path("/etc/logrotate.d/rsyslog")]
    with running_rsyslogd([*SNIPPETS, DEBIANS], tmp_path) as logging:
        node = logging.node
        write_folder(node, "/etc/logrotate.d", rotated)
        node.path("/run/systemd/system").mkdir(parents=True)
        node.path("/usr/local/sbin/systemctl").write_text(SYSTEMCTL)
        node.path("/usr/local/sbin/systemctl").chmod(0o755)
        for pid in (1, 2, 3):
            logging.send_unix(event(pid))
            logging.send_unix(f"<158>haproxy[{pid}]: line {pid}")
            logging.wait_for("haproxy.log", f"line {pid}")
            logging.wait_for("sentinel.json", "haproxy.died")
            if pid < 3:
                node.run("logrotate", "-v", "-f", "/etc/logrotate.conf")
        assert logging.lines("sentinel.json") == logging.lines("sentinel.json.1") == [TEXT]
        assert node.path("/var/log/sentinel.json.2.gz").exists(), "delaycompress: the second is"
        assert [line[-6:] for line in logging.lines("haproxy.log")] == ["line 3"]
        assert [line[-6:] for line in logging.lines("haproxy.log.1")] == ["line 2"]


#: What the article has in rsyslog.conf.
ARTICLES: Final = """\
$ModLoad imudp
$UDPServerRun 514
$UDPServerAddress 127.0.0.1
local3.*                /var/log/haproxy.log
"""


def install_command() -> str:
    """Return the commands of contrib/README.md that put the rsyslog files in their place."""
    readme = (CONTRIB / "README.md").read_text()
    (commands,) = re.findall(
        r"^install -m 644 contrib/rsyslog/.*?/etc/rsyslog\.d/\n(?=install|\[)",
        readme,
        re.DOTALL | re.MULTILINE,
    )
    return str(commands)


@pytest.mark.parametrize(
    ("stock", "beside", "listens"),
    [("", False, True), (ARTICLES, False, False), ("", True, False)],
    ids=["debian's", "the article's", "an administrator's snippet"],
)
def test_udp_is_listened_on_once(
    tmp_path: Path, stock: str, *, beside: bool, listens: bool
) -> None:
    """The README's commands look first, twice as well as once, and rsyslogd has no complaint."""
    with running_node() as node:
        debians = Path("/etc/rsyslog.conf").read_text()
        node.path("/run/rsyslog.conf").write_text(stock + debians)
        node.run("mount", "--bind", "/run/rsyslog.conf", "/etc/rsyslog.conf")
        write_folder(node, "/etc/rsyslog.d", [admins_udp(tmp_path)] if beside else [])
        for _ in range(2):
            node.run("sh", "-eu", "-c", f"cd {PROJECT}\n{install_command()}")
        assert node.path("/etc/rsyslog.d/49-sentinel.conf").exists()
        assert node.path("/etc/rsyslog.d/49-sentinel-udp.conf").exists() is listens
        node.run("rsyslogd", "-N1")  # exit 1 at any complaint
