"""Listening sockets as sock_diag gives them, against what /proc says of the same kernel."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
from contextlib import ExitStack, closing

import pytest
from privileges import IS_ROOT

from sentinel.processes import procfs, sockdiag


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
        found = sockdiag.listening()
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
        found = sockdiag.listening()
        assert found is not None
        inodes = {row.inode for row in found}
        assert os.fstat(server.fileno()).st_ino in inodes
        assert os.fstat(client.fileno()).st_ino not in inodes


def test_a_kernel_that_cannot_be_asked_leaves_it_to_proc() -> None:
    """No descriptor for a socket: None, and nothing is raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        assert sockdiag.listening() is None
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
