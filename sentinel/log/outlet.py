"""A bounded backlog of log lines before a link that may be busy or broken.

A *link* is one way out of the process (``links``): it gives bytes to the kernel or says at once
that it cannot. The rules:

- No call here blocks.
- Lines leave in order. While the link is busy or broken they wait in the backlog; once that is
  full, new lines are dropped and counted until it has been emptied, so that the line telling of
  the gap stands exactly where the gap is.
- A broken link is mended once at once (a restarted syslog daemon costs nothing), then only at
  ``retry``, so that a dead receiver costs one attempt a tick however much is logged.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

BACKLOG_MAX: Final = 256


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


class EarlierLineLostError(OSError):
    """Not this line: the ICMP answer to an earlier one has come (udp(7), ECONNREFUSED)."""


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
