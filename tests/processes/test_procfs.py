"""What /proc says, from recorded text and from living processes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from haproxies import wait_until
from hypothesis import given
from hypothesis import strategies as st
from privileges import IS_ROOT, as_nobody

from sentinel.model import Proc
from sentinel.processes import procfs
from sentinel.processes.procfs import Stat
from sentinel.processes.sockdiag import ListeningSocket

if TYPE_CHECKING:
    from pathlib import Path

FIELDS = b"S 26274 " + b"0 " * 17 + b"179295 0 0\n"

TCP = b"""\
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 4711 1 x
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 x
   2: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 x
   3: 00000000:01BB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4714 1 x
"""
TCP6 = b"""\
   0: 00000000000000000000000001000000:01BB 00000000000000000000000000000000:0000 0A \
00000000:00000000 00:00000000 00000000     0        0 99 1 x
"""
UNIX = b"""\
0000000071d6d1ac: 00000003 00000000 00000000 0001 03 99832
00000000ef025f67: 00000002 00000000 00010000 0001 01 99840 /run/a b.sock.9198.tmp
00000000ef025f68: 00000003 00000000 00000000 0001 03 99841 /run/connected
00000000ef025f69: 00000002 00000000 00010000 0001 01 99842 @abstract
00000000ef025f6a: 00000002 00000000 00010000 0001 01 99843
"""


@given(st.binary(min_size=1, max_size=15).filter(lambda name: b"\0" not in name))
def test_any_name_is_read(name: bytes) -> None:
    """A process may call itself whatever it likes, parentheses and blanks included."""
    stat = procfs.parse_stat(b"4711 (" + name + b") " + FIELDS)
    assert stat == Stat(
        proc=Proc(pid=4711, start_ticks=179295),
        name=os.fsdecode(name),
        state="S",
        parent=26274,
    )


def test_listening_tcp_sockets_come_first() -> None:
    """Reading ends at the first connection; host order, hexadecimal ports and backlog are read."""
    assert tuple(procfs.parse_tcp(iter(TCP.splitlines(keepends=True)))) == (
        ListeningSocket(address="127.0.0.1", port=8080, inode=4711, backlog=3),
        ListeningSocket(address="0.0.0.0", port=80, inode=4712),
    )


def test_ipv6_addresses_are_read() -> None:
    """Four words, each in host order."""
    expected = ListeningSocket(address="::1", port=443, inode=99)
    assert tuple(procfs.parse_tcp(iter([TCP6]))) == (expected,)


def test_listening_unix_sockets_have_a_name() -> None:
    """Connected and nameless ones are nobody's target."""
    assert tuple(procfs.parse_unix(iter(UNIX.splitlines(keepends=True)))) == (
        ListeningSocket(address="/run/a b.sock.9198.tmp", port=0, inode=99840),
        ListeningSocket(address="@abstract", port=0, inode=99842),
    )


def test_what_is_no_row_is_passed_over() -> None:
    """A socket's name may hold a newline, and after it whatever its owner likes."""
    made_up = (
        b"a b c no-hex e f g h\n",
        b"\n",
        b"00000000ef025f6b: 00000002 00000000 00010000 0001 01 x /run/made.up\n",
        b"00000000ef025f6b: 00000002 00000000 00010000 0001 01 99844 /run/made.up",
        b"0: 00000002 00000000 00010000 0001 01 " + b"9" * 90 + b" /run/made.up\n",
    )
    rows = [*made_up, *UNIX.splitlines(keepends=True), *made_up]
    assert [row.inode for row in procfs.parse_unix(iter(rows))] == [99840, 99842]


def test_a_socket_that_two_rows_claim_is_nobodys() -> None:
    """One of them is made up, and gives it another name; nothing tells which."""
    forged = b"00000000ef025f6b: 00000002 00000000 00010000 0001 01 99840 /run/made.up\n"
    of_connected = b"00000000ef025f6b: 00000002 00000000 00010000 0001 01 99841 /run/made.up\n"
    rows = [forged, *UNIX.splitlines(keepends=True), of_connected]
    assert [row.inode for row in procfs.parse_unix(iter(rows))] == [99842]


def test_the_kernel_lists_what_we_listen_on(tmp_path: Path) -> None:
    """Real sockets of every family are found, with the inodes that our descriptors show."""
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as v4,
        closing(socket.create_server(("::1", 0), family=socket.AF_INET6)) as v6,
        closing(socket.socket(socket.AF_UNIX)) as unix,
    ):
        unix.bind(str(tmp_path / "s"))
        unix.listen()
        listening = {
            (found.address, found.port): found.inode
            for found in procfs.listening_sockets(os.getpid())
        }
        wanted = [v4.getsockname()[:2], v6.getsockname()[:2], (str(tmp_path / "s"), 0)]
        inodes = [os.fstat(sock.fileno()).st_ino for sock in (v4, v6, unix)]
        assert [listening[address] for address in wanted] == inodes
        assert set(inodes) <= set(procfs.socket_inodes(os.getpid()))


def test_a_backlog_is_counted() -> None:
    """Connections that nobody accepts are seen waiting."""
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as server,
        closing(socket.create_connection(server.getsockname())),
        closing(socket.create_connection(server.getsockname())),
    ):
        inode = os.fstat(server.fileno()).st_ino
        sockets = procfs.listening_sockets(os.getpid())
        assert [sock.backlog for sock in sockets if sock.inode == inode] == [2]


def test_reading_descriptors_can_end_early() -> None:
    """Only the first descriptors are read when only they are asked for."""
    assert tuple(procfs.socket_inodes(os.getpid(), 0)) == ()


def test_what_is_gone_says_nothing() -> None:
    """A process that is no more, and one that is not reaped, have nothing to tell."""
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        zombie = procfs.read_stat(process.pid)
        assert zombie is not None
        assert (zombie.state, zombie.alive) == ("Z", False)
        assert everything(process.pid) == ((), "", None, (), ())
    assert procfs.read_stat(process.pid) is None
    assert everything(process.pid) == ((), "", None, (), ())


def everything(pid: int) -> tuple[object, ...]:
    """Ask every reader about one process."""
    return (
        procfs.argv(pid),
        procfs.program(pid),
        procfs.link(pid, "cwd"),
        tuple(procfs.socket_inodes(pid)),
        procfs.listening_sockets(pid),
    )


def test_a_replaced_program_keeps_its_name(tmp_path: Path) -> None:
    """The kernel marks the link of what an upgrade has taken away."""
    copy = tmp_path / "sleep"
    shutil.copy("/bin/sleep", copy)
    with subprocess.Popen([copy, "60"]) as process:
        copy.unlink()
        assert os.readlink(f"/proc/{process.pid}/exe").endswith(" (deleted)")  # noqa: PTH115
        assert procfs.program(process.pid) == str(copy)
        process.kill()


@pytest.mark.skipif(not IS_ROOT, reason="giving up rights needs root")
def test_what_may_not_be_read_is_not_gone() -> None:
    """A stranger's links are unknown and his descriptors refused, but his arguments are public."""
    with subprocess.Popen(["sleep", "60"]) as process:
        wait_until(lambda: procfs.argv(process.pid), "it has its arguments")
        with as_nobody():
            assert procfs.program(process.pid) is None
            assert procfs.link(process.pid, "cwd") is None
            assert procfs.argv(process.pid) == ("sleep", "60")
            with pytest.raises(PermissionError):
                tuple(procfs.socket_inodes(process.pid))
        process.send_signal(signal.SIGKILL)
