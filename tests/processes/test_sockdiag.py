"""Listening sockets as sock_diag gives them, against what /proc says of the same kernel."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from privileges import IS_ROOT

from sentinel.processes import procfs, sockdiag

if TYPE_CHECKING:
    from pathlib import Path


def of_proc(name: str) -> set[sockdiag.ListeningSocket]:
    """Return the listening rows of a table in /proc/net."""
    with open(f"/proc/self/net/{name}", "rb") as table:  # noqa: PTH123  (bytes by the row)
        next(table)
        return set(procfs.parse_tcp(table))


def test_both_sources_agree() -> None:
    """Addresses, ports, inodes and backlogs of both families, a hundred of them."""
    with ExitStack() as stack:
        inodes = set()
        for number in range(100):
            host, family = (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6))[number % 2]
            server = stack.enter_context(
                closing(socket.create_server((host, 0), family=family, backlog=number + 1))
            )
            inodes.add(os.fstat(server.fileno()).st_ino)
            if number < 4:
                address = server.getsockname()[:2]
                stack.enter_context(closing(socket.create_connection(address)))
        found = sockdiag.listening_tcp()
        assert found is not None
        ours = {row for row in found if row.inode in inodes}
        assert ours == {row for row in of_proc("tcp") | of_proc("tcp6") if row.inode in inodes}
        assert len(ours) == 100
        assert sum(row.backlog for row in ours) == 4


def test_connections_are_not_listed() -> None:
    """Only what listens: a busy node has tens of thousands of the others."""
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as server,
        closing(socket.create_connection(server.getsockname())) as client,
    ):
        found = sockdiag.listening_tcp()
        assert found is not None
        inodes = {row.inode for row in found}
        assert os.fstat(server.fileno()).st_ino in inodes
        assert os.fstat(client.fileno()).st_ino not in inodes


def test_unix_sockets_have_the_names_that_proc_gives_them(tmp_path: Path) -> None:
    """Paths and abstract ones, as they are spelled there, and none that does not listen."""
    with ExitStack() as stack:
        inodes = set()
        for name in (f"{tmp_path}/a b", f"\0{tmp_path}\0end"):
            server = stack.enter_context(closing(socket.socket(socket.AF_UNIX)))
            server.bind(name)
            server.listen()
            inodes.add(os.fstat(server.fileno()).st_ino)
        connected = stack.enter_context(closing(socket.socket(socket.AF_UNIX)))
        connected.bind(f"{tmp_path}/client")
        connected.connect(f"{tmp_path}/a b")
        with open("/proc/self/net/unix", "rb") as table:  # noqa: PTH123  (bytes by the row)
            proc = set(procfs.parse_unix(table))
        found = sockdiag.listening_unix()
        assert found is not None
        ours = {row for row in found if str(tmp_path) in row.address}
        assert ours == {row for row in proc if str(tmp_path) in row.address}
        assert {row.inode for row in ours} == inodes


def test_nobody_writes_rows_of_his_own(tmp_path: Path) -> None:
    """A name with newlines is one name, whatever stands in it."""
    name = f"\0{tmp_path.name}\na b c no-hex e f g h\n"
    with closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(name)
        server.listen()
        inode = os.fstat(server.fileno()).st_ino
        rows = procfs.listening_sockets(os.getpid())
        (ours,) = (row for row in rows if row.inode == inode)
        assert ours.address == name.replace("\0", "@")


def test_a_kernel_that_cannot_be_asked_leaves_it_to_proc() -> None:
    """No descriptor for a socket: None, and nothing is raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        assert sockdiag.listening_tcp() is None
        assert sockdiag.listening_unix() is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


_LISTEN_ELSEWHERE = """\
import os, socket
listener = socket.socket()
listener.bind(("0.0.0.0", 8080))
listener.listen()
print(os.fstat(listener.fileno()).st_ino, flush=True)
input()
"""


@pytest.mark.skipif(not IS_ROOT, reason="only root may make a network namespace")
def test_another_network_namespace_is_read_there() -> None:
    """A process of another namespace listens where sock_diag does not look."""
    with subprocess.Popen(
        ["unshare", "--net", sys.executable, "-c", _LISTEN_ELSEWHERE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        inode = json.loads(process.stdout.readline())
        (there,) = procfs.listening_sockets(process.pid)
        assert (there.address, there.port, there.inode) == ("0.0.0.0", 8080, inode)
        process.communicate(b"\n")
