"""The ways out of the process for log lines: a socket to a syslog daemon, and stderr.

No call here blocks. Sockets are non-blocking; stderr is never switched to O_NONBLOCK, because that
flag belongs to the open file, which a shell or a terminal may share.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from sentinel.address import LogTarget, Remote, UnixPath
from sentinel.address import Protocol as Transport
from sentinel.log.outlet import EarlierLineLostError

#: Small enough that little is lost unseen when a TCP peer vanishes with its buffer full.
TCP_SEND_BUFFER_BYTES: Final = 64 * 1024
#: How long unacknowledged data may stand before a TCP connection counts as dead (RFC 5482).
TCP_USER_TIMEOUT_MS: Final = 10_000
#: Two more SYNs after the first: a connection attempt ends after 7 s (tcp(7), TCP_SYNCNT).
TCP_SYN_COUNT: Final = 2


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
        """Close what was opened here, never stderr itself; who sends after that is refused."""
        self._write = _refuse  # the descriptor's number is somebody else's from now on
        if isinstance(self._owned, int):
            os.close(self._owned)
        elif self._owned is not None:
            self._owned.close()
        self._owned = None


def _refuse(_data: bytes) -> int:
    raise OSError(errno.EBADF, "closed")


def _write_if_ready(fd: int, data: bytes) -> int:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    if not poll.poll(0):
        raise BlockingIOError
    return os.write(fd, data[: select.PIPE_BUF])
