"""What /proc says of one process, and of the sockets that listen (proc(5)).

Every reader answers None or nothing for a process that is gone. It raises OSError for what is
there and may not be read: that is never the same as gone. Nothing here keeps state.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sentinel.model import Proc
from sentinel.processes import sockdiag
from sentinel.processes.sockdiag import ListeningSocket

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What a process says when it is no more: reading a kept descriptor gives ESRCH.
GONE: Final = (FileNotFoundError, ProcessLookupError)
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
#: The kernel's own limit of pids (PID_MAX_LIMIT); more is no pid, whatever a file says.
PID_MAX: Final = 2**22
NAME_CHARS_MAX: Final = 15  # TASK_COMM_LEN without its NUL

_LISTEN: Final = b"0A"  # TCP_LISTEN, include/net/tcp_states.h
_ACCEPTS: Final = 0x10000  # __SO_ACCEPTCON, include/linux/net.h
#: unix_seq_show in the kernel's net/unix/af_unix.c
_UNIX_ROW: Final = re.compile(
    rb"[0-9a-f]{8,16}: [0-9A-F]{8} [0-9A-F]{8} (?P<flags>[0-9A-F]{8}) [0-9A-F]{4} [0-9A-F]{2}"
    rb" +(?P<inode>[0-9]{1,20})(?: (?P<name>[^\n]+))?\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat:
    """/proc/PID/stat, as far as it is of use; *state* is R, S, D, T, t, Z or X."""

    proc: Proc
    name: str
    state: str
    parent: int

    @property
    def alive(self) -> bool:
        """The process is more than an entry in the process table."""
        return self.state not in {"Z", "X", "x"}


def parse_stat(raw: bytes) -> Stat:
    """Read a line of /proc/PID/stat; the name in it may hold blanks and parentheses."""
    head, _, tail = raw.rpartition(b") ")
    pid, _, name = head.partition(b" (")
    fields = tail.split(maxsplit=20)
    return Stat(
        proc=Proc(pid=int(pid), start_ticks=int(fields[19])),
        name=os.fsdecode(name),
        state=chr(fields[0][0]),
        parent=int(fields[1]),
    )


def read_stat(pid: int) -> Stat | None:
    """Return the stat of *pid*, None when there is no such process."""
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_bytes())
    except GONE:
        return None


def argv(pid: int) -> tuple[str, ...]:
    """Return the arguments of *pid*; none for a zombie or when it is gone."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except GONE:
        return ()
    return tuple(os.fsdecode(raw).split("\0")[:-1])


def uids(pid: int) -> frozenset[int]:
    """Return the real, effective, saved and file system user ids of *pid*; none when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except GONE:
        return frozenset()
    found = next(line for line in status.splitlines() if line.startswith(b"Uid:"))
    return frozenset(map(int, found.split()[1:]))


def link(pid: int, name: str) -> str | None:
    """Return where /proc/PID/*name* points; None when unknown: it takes ptrace rights to read."""
    try:
        return os.readlink(f"/proc/{pid}/{name}")  # noqa: PTH115  (no path of ours: "net:[4026]")
    except (*GONE, PermissionError):
        return None


def program(pid: int) -> str | None:
    """Return the file that *pid* executes; None when unknown: it takes ptrace rights to read.

    It is empty for what executes none: a zombie, one of the kernel's own, what is gone. To the name
    of a file that has been replaced since, by an upgrade as a rule, the kernel adds " (deleted)".
    """
    try:
        path = os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115  (of every process, in a search)
    except GONE:
        return ""
    except PermissionError:
        return None
    return path.removesuffix(" (deleted)")


def socket_inodes(pid: int, fds_max: int = sys.maxsize) -> Iterator[int]:
    """Yield the inodes of the sockets among the first *fds_max* descriptors of *pid*, ascending.

    Reads as it goes: whoever has found what he seeks stops, and pays only for that much.
    """
    with suppress(*GONE), os.scandir(f"/proc/{pid}/fd") as entries:
        for entry, _ in zip(entries, range(fds_max), strict=False):
            with suppress(*GONE):
                target = os.readlink(entry.path)  # noqa: PTH115  (thousands; "socket:[123]")
                if target.startswith("socket:["):
                    yield int(target[8:-1])


def listening_sockets(pid: int) -> tuple[ListeningSocket, ...]:
    """Return what listens in the network namespace of *pid*: TCP, TCP over IPv6, Unix sockets."""
    namespace = link(pid, "ns/net")
    here = namespace is not None and namespace == link(os.getpid(), "ns/net")
    tcp = sockdiag.listening_tcp() if here else None
    if tcp is None:
        tcp = tuple(row for name in ("tcp", "tcp6") for row in parse_tcp(_rows(pid, name)))
    unix = sockdiag.listening_unix() if here else None
    if unix is None:
        known = {row.inode for row in tcp}
        unix = tuple(row for row in parse_unix(_rows(pid, "unix")) if row.inode not in known)
    return (*tcp, *unix)


def parse_tcp(rows: Iterator[bytes]) -> Iterator[ListeningSocket]:
    """Read rows of /proc/net/tcp or tcp6 up to the first that does not listen.

    The kernel gives the listening ones first (tcp_seq_start); what follows are the connections,
    tens of thousands on a busy node, and is neither parsed nor even asked for.
    """
    for row in rows:
        fields = row.split(maxsplit=10)
        if fields[3] != _LISTEN:
            return
        address, _, port = fields[1].partition(b":")
        yield ListeningSocket(
            address=_ip(address.decode()),
            port=int(port, 16),
            inode=int(fields[9]),
            backlog=int(fields[4].partition(b":")[2], 16),
        )


def parse_unix(rows: Iterator[bytes]) -> Iterator[ListeningSocket]:
    """Read rows of /proc/net/unix: those that accept connections and have a name.

    A name may hold a newline, and so a row of its owner's own making, which cannot be told from the
    kernel's. What is no row is passed over; and where two rows claim the same socket, so are both.
    """
    whole = [row for row in map(_UNIX_ROW.fullmatch, rows) if row]
    claims = Counter(int(row["inode"]) for row in whole)
    for row in whole:
        inode = int(row["inode"])
        if row["name"] and int(row["flags"], 16) & _ACCEPTS and claims[inode] == 1:
            yield ListeningSocket(address=os.fsdecode(row["name"]), port=0, inode=inode)


def _rows(pid: int, name: str) -> Iterator[bytes]:
    """Yield the rows of a table without its heading; none where the kernel lacks the protocol."""
    with suppress(*GONE), Path(f"/proc/{pid}/net/{name}").open("rb") as table:
        next(table, None)
        yield from table


def _ip(text: str) -> str:
    """Turn the kernel's address, words of four bytes in host order, into the usual text."""
    words = (int(text[at : at + 8], 16) for at in range(0, len(text), 8))
    raw = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    family = socket.AF_INET if len(raw) == len("IPv4") else socket.AF_INET6
    return socket.inet_ntop(family, raw)
