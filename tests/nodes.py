"""Nodes for tests: namespaces with a network, mounts and processes of their own, as root.

The shipped files are used unmodified at the paths they name, since /run, /var/log, /dev and the
like are the node's own. What is started in a node ends with it: its first process is the node.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[1]
HOOK: Final = "/usr/libexec/keepalived/chk_sentinel.sh"
DEADLINE_S: Final = 20.0
#: Folders of which every node has its own, empty.
FOLDERS: Final = (
    *("/run", "/usr/libexec", "/usr/local/sbin", "/var/log", "/var/spool"),
    *("/var/lib/haproxy", "/var/lib/logrotate"),
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")

_SETUP: Final = f"""
set -e
mkdir -p {" ".join(FOLDERS)}
for folder in {" ".join(FOLDERS)}; do
    mount -t tmpfs -o mode=755 tmpfs $folder
done
mkdir -p /run/dev /run/sentinel /run/haproxy /var/spool/rsyslog /var/lib/haproxy/dev
for device in null zero full random urandom tty; do
    cp -a /dev/$device /run/dev/
done
mount --bind /run/dev /dev
mkdir -p $(dirname {HOOK})
install -m 755 {ROOT}/contrib/keepalived/chk_sentinel.sh {HOOK}
ip link set lo up
echo ready
exec cat
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node; *pid* is its first process, seen from here."""

    pid: int

    def path(self, inside: str) -> Path:
        """Return the way from here to an absolute path inside the node."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def argv(self, *argv: str) -> tuple[str, ...]:
        """Return the command line that runs *argv* in the node."""
        return ("nsenter", "-t", str(self.pid), "-n", "-m", "-p", *argv)

    def run(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program in the node to its end; stdout and stderr come back together."""
        done = subprocess.run(
            self.argv(*argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert not check or done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}"
        return done

    @contextmanager
    def running(self, *argv: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """Run a program in the node for the length of the block; its output goes to *log*."""
        with (
            log.open("wb") as output,
            subprocess.Popen(
                self.argv(*argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            ) as process,
        ):
            try:
                yield process
            finally:
                self._end(process)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """End by SIGTERM what nsenter started; nsenter itself only waits for it."""
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        for pid in children.read_text().split() if children.exists() else ():
            self.run("kill", self._inside(int(pid)), check=False)
        try:
            process.wait(DEADLINE_S)
        finally:
            process.kill()

    @staticmethod
    def _inside(pid: int) -> str:
        """Return the pid that a process of the node has inside it."""
        status = Path(f"/proc/{pid}/status").read_text()
        return next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1]


@contextmanager
def running_node() -> Iterator[Node]:
    """Make a node with an empty /run, /var/log and spool, the hook in its place and only lo."""
    with subprocess.Popen(
        ["unshare", "-n", "-m", "-p", "--fork", "--kill-child", "--mount-proc", "sh", "-c", _SETUP],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as unshare:
        try:
            assert unshare.stdout is not None
            assert unshare.stdout.readline() == b"ready\n", "the node could not be made"
            first = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()[0]
            yield Node(pid=int(first))
        finally:
            unshare.kill()


def connect(one: Node, other: Node, address: str, other_address: str) -> None:
    """Lay a cable between two nodes: eth0 to eth0, each with its address."""
    cable = f"eth0 netns {one.pid} type veth peer name eth0 netns {other.pid}"
    subprocess.run(["ip", "link", "add", *cable.split()], check=True)
    for node, own in ((one, address), (other, other_address)):
        node.run("ip", "address", "add", own, "dev", "eth0")
        node.run("ip", "link", "set", "eth0", "up")
