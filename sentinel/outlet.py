"""Where log lines leave the process, without ever waiting for whoever reads them.

A *link* is one way out (a socket, stderr); it gives bytes to the kernel or says at once that it
cannot. An *outlet* puts a bounded backlog before a link. The rules:

- No call here blocks. Sockets are non-blocking; stderr is never switched to O_NONBLOCK, because
  that flag belongs to the open file, which a shell or a terminal may share.
- Lines leave in order. While the link is busy or broken they wait in the backlog; once that is
  full, new lines are dropped and counted until it has been emptied, so that the line telling of
  the gap stands exactly where the gap is.
- A broken link is mended once at once (a restarted syslog daemon costs nothing), then only at
  ``retry``, so that a dead receiver costs one attempt a tick however much is logged.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from sentinel.address import LogTarget, Remote, UnixPath
from sentinel.address import Protocol as Transport

BACKLOG_MAX: Final = 256
#: Small enough that little is lost unseen when a TCP peer vanishes with its buffer full.
TCP_SEND_BUFFER_BYTES: Final = 64 * 1024
#: How long unacknowledged data may stand before a TCP connection counts as dead (RFC 5482).
TCP_USER_TIMEOUT_MS: Final = 10_000
#: Two more SYNs after the first: a connection attempt ends after 7 s (tcp(7), TCP_SYNCNT).
TCP_SYN_COUNT: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Drops:
    """Lines that were lost, by cause."""

    busy: int = 0  # the receiver lives, but does not read
    unreachable: int = 0  # there is no receiver
    oversized: int = 0  # the kernel will not take a line this long

    @property
    def total(self) -> int:
        """All causes together."""
        return self.busy + self.unreachable + self.oversized

    def __add__(self, other: Drops) -> Drops:
        return Drops(
            busy=self.busy + other.busy,
            unreachable=self.unreachable + other.unreachable,
            oversized=self.oversized + other.oversized,
        )


_BUSY: Final = Drops(busy=1)
_UNREACHABLE: Final = Drops(unreachable=1)
_OVERSIZED: Final = Drops(oversized=1)


class Link(Protocol):
    """One way out of the process."""

    def send(self, line: bytes) -> bool:
        """Hand over *line*; False when it must wait: then the same line comes again, first.

        Raises OSError when the link is broken; the next call opens it anew.
        """
        ...

    def renew(self) -> None:
        """Look whether a busy receiver has been replaced by another one."""
        ...

    def close(self) -> None:
        """Give the kernel's objects back."""
        ...


class EarlierLineLostError(OSError):
    """Not this line: the ICMP answer to an earlier one has come (udp(7), ECONNREFUSED)."""


class SocketLink:
    """A syslog receiver behind a socket: Unix datagram or stream, UDP or TCP.

    Streams carry octet-counted frames over TCP (RFC 6587, section 3.4.1) and NUL-terminated ones
    over a Unix socket, as the C library's syslog(3) writes them. UDP promises nothing: what is lost
    on the way is known only where an ICMP answer tells of it.
    """

    def __init__(self, target: UnixPath | Remote) -> None:
        self._target: Final = target
        self._socket: socket.socket | None = None
        self._sent_bytes = 0  # of the line that comes again
        self._udp: Final = isinstance(target, Remote) and target.protocol is Transport.UDP

    def send(self, line: bytes) -> bool:
        """See Link.send."""
        try:
            if self._socket is None:
                self._socket = _connect(self._target)
                self._sent_bytes = 0
            return self._push(self._socket, line)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                return False
            if error.errno != errno.EMSGSIZE:
                self.close()
            if self._udp and error.errno == errno.ECONNREFUSED:
                raise EarlierLineLostError from error
            raise

    def _push(self, sock: socket.socket, line: bytes) -> bool:
        if sock.type is socket.SOCK_DGRAM:
            sock.send(line)
            return True
        _raise_if_closed_by_peer(sock)
        frame = self._frame(line)
        self._sent_bytes += sock.send(frame[self._sent_bytes :])
        if self._sent_bytes < len(frame):
            return False
        self._sent_bytes = 0
        return True

    def _frame(self, line: bytes) -> bytes:
        if isinstance(self._target, UnixPath):
            return line + b"\0"
        return b"%d %b" % (len(line), line)

    def renew(self) -> None:
        """Move to whoever listens at the path now; a hung daemon may have been replaced."""
        old = self._socket
        if old is None or old.type is not socket.SOCK_DGRAM:
            return
        with suppress(OSError):
            self._socket = _connect(self._target)
            old.close()

    def close(self) -> None:
        """See Link.close."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def link_to(target: LogTarget) -> SocketLink | None:
    """Return the link to a configured target; nothing is opened before the first line."""
    return None if target is None else SocketLink(target)


def _connect(target: UnixPath | Remote) -> socket.socket:
    if isinstance(target, UnixPath):
        try:
            return _connected(socket.AF_UNIX, socket.SOCK_DGRAM, target.path)
        except OSError as error:
            if error.errno != errno.EPROTOTYPE:  # connect(2): a socket of another type
                raise
        return _connected(socket.AF_UNIX, socket.SOCK_STREAM, target.path)
    family = socket.AF_INET6 if ":" in target.address.host else socket.AF_INET
    kind = socket.SOCK_DGRAM if target.protocol is Transport.UDP else socket.SOCK_STREAM
    # The host is numeric (read_log_target), so no resolver is asked.
    return _connected(family, kind, (target.address.host, target.address.port))


def _connected(
    family: socket.AddressFamily, kind: socket.SocketKind, address: str | tuple[str, int]
) -> socket.socket:
    """Return a non-blocking socket whose connection stands or, for TCP, is under way."""
    sock = socket.socket(family, kind)
    sock.settimeout(0)
    if kind is socket.SOCK_STREAM and family is not socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, TCP_SEND_BUFFER_BYTES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, TCP_SYN_COUNT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MS)
    error = sock.connect_ex(address)
    if error not in {0, errno.EINPROGRESS}:
        sock.close()
        raise OSError(error, os.strerror(error))
    return sock


def _raise_if_closed_by_peer(sock: socket.socket) -> None:
    """Find the end of a stream before writing: the first write after it would be lost unseen."""
    with suppress(BlockingIOError):
        if not sock.recv(4096):  # a syslog receiver has nothing to say, and is not listened to
            raise ConnectionResetError(errno.ECONNRESET, "closed by the receiver")


class StderrLink:
    """Standard error, whatever it is, without waiting and without touching its shared flags.

    The journal's socket is written with MSG_DONTWAIT. Pipes and terminals are opened once more
    through /proc/self/fd, which yields an open file of our own with its own O_NONBLOCK; where that
    is not permitted, no more is written than poll(2) and PIPE_BUF promise to take. Plain files and
    /dev/null do not block.
    """

    def __init__(self, fd: int) -> None:
        self._sent_bytes = 0
        self._owned: socket.socket | int | None = None
        mode = os.fstat(fd).st_mode
        self._write: Callable[[bytes], int] = lambda data: os.write(fd, data)
        if stat.S_ISSOCK(mode):
            sock = socket.socket(fileno=os.dup(fd))
            self._owned = sock
            self._write = lambda data: sock.send(data, socket.MSG_DONTWAIT)
        elif stat.S_ISFIFO(mode) or os.isatty(fd):
            try:
                own = os.open(
                    f"/proc/self/fd/{fd}",
                    os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC,
                )
            except OSError:
                self._write = lambda data: _write_if_ready(fd, data)
            else:
                self._owned = own
                self._write = lambda data: os.write(own, data)

    def send(self, line: bytes) -> bool:
        """See Link.send."""
        try:
            self._sent_bytes += self._write(line[self._sent_bytes :])
        except BlockingIOError:
            return False
        if self._sent_bytes < len(line):
            return False
        self._sent_bytes = 0
        return True

    def renew(self) -> None:
        """Nothing to do: stderr stays what it is."""

    def close(self) -> None:
        """Close what was opened here, never stderr itself."""
        if isinstance(self._owned, int):
            os.close(self._owned)
        elif self._owned is not None:
            self._owned.close()
        self._owned = None


def _write_if_ready(fd: int, data: bytes) -> int:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    if not poll.poll(0):
        raise BlockingIOError
    return os.write(fd, data[: select.PIPE_BUF])


class Outlet:
    """A bounded backlog before a link; *gap* renders the line that tells how many are missing."""

    def __init__(self, link: Link, *, gap: Callable[[int], bytes]) -> None:
        self.dropped = Drops()
        self._link: Final = link
        self._gap: Final = gap
        self._backlog: Final[deque[bytes]] = deque()
        self._missed = 0  # dropped since the backlog was last empty
        self._broken = False

    @property
    def waiting(self) -> int:
        """Lines in the backlog."""
        return len(self._backlog)

    def put(self, line: bytes) -> None:
        """Send *line*, or keep it, or drop and count it."""
        if self._backlog:
            self._flush()
        if self._missed or len(self._backlog) >= BACKLOG_MAX:
            self._missed += 1
            self.dropped += self._cause
            return
        self._backlog.append(line)
        self._flush()

    def retry(self) -> None:
        """Try again what could not be sent; to be called at every tick."""
        if not self._backlog:
            return
        if not self._broken:
            self._link.renew()
        self._broken = False
        self._flush()

    def close(self) -> None:
        """Make a last attempt, count what is left, and close the link."""
        self.retry()
        while self._backlog:
            self._backlog.popleft()
            self.dropped += self._cause
        self._link.close()

    def _flush(self) -> None:
        """Send what the link takes; after a gap, the line that tells of it."""
        while not self._broken and self._backlog:
            if not self._send(self._backlog[0]):
                return
            self._backlog.popleft()
            if not self._backlog and self._missed:
                self._backlog.append(self._gap(self._missed))
                self._missed = 0

    def _send(self, line: bytes) -> bool:
        """Return whether *line* is done with; a broken link gets one second chance."""
        for _ in range(2):
            try:
                return self._link.send(line)
            except EarlierLineLostError:
                self.dropped += _UNREACHABLE
            except OSError as error:
                if error.errno == errno.EMSGSIZE:
                    self.dropped += _OVERSIZED
                    return True
        self._broken = True
        return False

    @property
    def _cause(self) -> Drops:
        return _UNREACHABLE if self._broken else _BUSY
