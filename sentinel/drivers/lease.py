"""The files that keepalived and its hook read, and the sign that the hook leaves.

- The lease, ``OK <deadline>`` or ``FAIL <deadline>``: the deadline is in hundredths of a second of
  CLOCK_BOOTTIME, the clock of /proc/uptime, which neither steps nor sleeps.
- The track file, ``0`` or ``1``: keepalived's weightless track_file, watched by inotify.
- The priority file, ``0`` down to ``-253``: a track_file of weight 1, which is added to the
  priority. Both are written only when their content is not what it should be, so that keepalived is
  not woken for nothing.

The rules of this file: a file is replaced by rename(2), so that no reader sees half of it, and is
readable for everyone whatever the umask. Nothing is synced: both files live on a tmpfs and mean
nothing after a reboot. On a full disk, where no new file can be written, the old one is written
over: a lease that says OK must not stand because there is no room to say FAIL. Failures are kept as
``error`` and counted, never raised, and the next call tries again.
"""

from __future__ import annotations

import errno
import math
import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sentinel.config import Config

#: The hook takes a deadline further ahead for garbage: the longest lease (60 s), rounded up.
AHEAD_MAX_S: Final = 61
_READ_BYTES_MAX: Final = 128
_LEASE: Final = re.compile(rb"[ \t]*(OK|FAIL)[ \t]+((?:0|[1-9][0-9]{0,8})[0-9]{2})[ \t]*\n")
_NUMBER: Final = re.compile(rb"\s*([+-]?[0-9]{1,9})")
_UPTIME: Final = re.compile(rb"([0-9]{1,12}\.[0-9]{2})\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A good lease: whether this node may hold the VIP, and until when (CLOCK_BOOTTIME)."""

    serving: bool
    deadline_cs: int

    @property
    def line(self) -> str:
        """The file's one line."""
        return f"{'OK' if self.serving else 'FAIL'} {self.deadline_cs:03}\n"


class KeepalivedFiles:
    """Writes this node's claim on the VIP, and reads when keepalived's hook last asked for it."""

    def __init__(self, config: Config) -> None:
        self.error = ""
        self.errors = 0
        self._config: Final = config
        self._called_s: float | None = None

    def write(self, *, serving: bool, lowered: int = 0, now_s: float) -> None:
        """Say OK or FAIL until ``hook.lease_s`` after *now_s* (CLOCK_BOOTTIME).

        *lowered* is what the priority is lowered by.
        """
        deadline_cs = math.floor((now_s + self._config.hook.lease_s) * 100)
        lease = Lease(serving=serving, deadline_cs=deadline_cs).line.encode()
        tracks = {
            self._config.track_file: b"0\n" if serving else b"1\n",
            self._config.priority_file: f"{-lowered}\n".encode(),
        }
        failures = []
        for path, content in tracks.items():
            try:
                if _read(path) != content:
                    _replace(path, content)
            except OSError as error:
                failures.append(_in_words(path, error))
        try:
            _replace(self._config.lease_file, lease)
        except OSError as error:
            failures.append(_in_words(self._config.lease_file, error))
        self.error = "; ".join(failures)
        self.errors += len(failures)

    def called_age_s(self, now_s: float) -> float | None:
        """Return how long ago keepalived ran the hook; None when it never has since the boot.

        A sign that cannot be read, or is half written, changes nothing: the last good one counts.
        """
        called_s = _called_s(self._config.sign)
        if called_s is not None and called_s <= now_s + 1:
            self._called_s = called_s
        return None if self._called_s is None else max(0.0, now_s - self._called_s)


def read_lease(path: str, *, now_cs: int) -> Lease | None:
    """Return a lease that is still good, None when it is over, missing or garbage.

    Accepts what the hook accepts (contrib/keepalived/chk_sentinel.sh), and nothing else.
    """
    try:
        match = _LEASE.match(_read(path))
    except OSError:
        return None
    if match is None:
        return None
    deadline_cs = int(match[2])
    if deadline_cs < now_cs or deadline_cs // 100 - now_cs // 100 > AHEAD_MAX_S:
        return None
    return Lease(serving=match[1] == b"OK", deadline_cs=deadline_cs)


def read_track(path: str) -> int:
    """Return the number in a track file; 0 where there is none, as keepalived takes it.

    Of a track file without a weight anything but 0 is FAULT (keepalived.conf(5), track_file).
    """
    try:
        match = _NUMBER.match(_read(path))
    except OSError:
        return 0
    return 0 if match is None else int(match[1])


def _called_s(path: str) -> float | None:
    try:
        match = _UPTIME.match(_read(path))
    except OSError:
        return None
    return None if match is None else float(match[1])


def _read(path: str) -> bytes:
    """Return the first bytes of a plain file, none of anything else; never waits on a FIFO."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        plain = stat.S_ISREG(os.fstat(fd).st_mode)
        return os.read(fd, _READ_BYTES_MAX) if plain else b""
    finally:
        os.close(fd)


def _replace(path: str, content: bytes) -> None:
    """Put *content* at *path* atomically; on a full disk at least put it there."""
    temporary = f"{path}.new"
    try:
        _write(temporary, content, os.O_CREAT | os.O_TRUNC)
        os.rename(temporary, path)  # noqa: PTH104  (strings come in, and this runs at every tick)
    except OSError as error:
        with suppress(OSError):
            Path(temporary).unlink()
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        _write(path, content, 0)


def _write(path: str, content: bytes, flags: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | flags, 0o644)
    try:
        os.fchmod(fd, 0o644)
        if os.write(fd, content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.ftruncate(fd, len(content))
    finally:
        os.close(fd)


def _in_words(path: str, error: OSError) -> str:
    return f"{path}: {error.strerror}"
