"""keepalived's notify FIFO (vrrp_notify_fifo): what happens to its instances, as it happens.

A FIFO has one reader, or the readers steal each other's lines. Made before keepalived opens it, it
is kept through all reloads; one that keepalived has made itself is removed and made anew at each,
which is seen by its link count alone, since its inode number may well be the same. Opened for
writing as well, it never ends, and what is written while nobody reads is kept: 64 KiB.

What was written before we came may be of another keepalived, long dead: it is not read.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sentinel.vrrp import VrrpState

if TYPE_CHECKING:
    from collections.abc import Callable

_FLAGS: Final = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
#: Read in one go; whatever is more waits for the next turn of the loop.
_READ_BYTES: Final = 4096
#: A pipe holds 64 KiB, but root may allow more (F_SETPIPE_SZ): what is stale is read this often.
_STALE_READS_MAX: Final = 512
_LINE_BYTES_MAX: Final = 1024
_LINE: Final = re.compile(rb'(INSTANCE|GROUP) "(.*)" ([A-Z_]+)(?: (\d{1,3}))?')
#: The state that each word of keepalived speaks of (notify_fifo in its vrrp_notify.c).
_STATES: Final = {
    "MASTER": VrrpState.MASTER,
    "MASTER_PRIORITY": VrrpState.MASTER,
    "MASTER_RX_LOWER_PRI": VrrpState.MASTER,
    "BACKUP": VrrpState.BACKUP,
    "BACKUP_PRIORITY": VrrpState.BACKUP,
    "FAULT": VrrpState.FAULT,
    "STOP": VrrpState.STOP,
    "DELETED": VrrpState.STOP,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One line of the FIFO. *priority* is the effective one; a sync group has none.

    *word* is keepalived's own, of which MASTER_RX_LOWER_PRI, MASTER_PRIORITY and BACKUP_PRIORITY
    say more than the *state* does.
    """

    name: str
    is_group: bool
    word: str
    state: VrrpState
    priority: int | None


def parse(line: bytes) -> Notice | None:
    """Read one line without its end; None when keepalived would not have written it."""
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    kind, name, word, priority = found.groups()
    state = _STATES.get(word.decode())
    if state is None:
        return None
    is_group = kind == b"GROUP"
    return Notice(
        name=name.decode("utf-8", "replace"),
        is_group=is_group,
        word=word.decode(),
        state=state,
        priority=None if is_group or priority is None else int(priority),
    )


class Fifo:
    """The one reader of a notify FIFO, until ``close``.

    *error* says why nothing can be heard now, or is empty; *opened* counts how often it was
    opened: when that grows, something may have been missed.
    """

    def __init__(self, path: str, on_notice: Callable[[Notice], None]) -> None:
        """Begin with nothing; ``attend`` opens the FIFO."""
        self.error = ""
        self.opened = 0
        self._path = path
        self._on_notice = on_notice
        self._descriptor = -1
        self._partial = b""

    def attend(self) -> None:
        """Have the FIFO open that is there now, made if there is none."""
        if self._descriptor >= 0:
            if os.fstat(self._descriptor).st_nlink > 0:
                return
            self._read()  # what was said before it was removed
            self.close()
        try:
            self._open()
            self.error = ""
        except OSError as error:
            self.error = f"{self._path}: {error.strerror}"

    def close(self) -> None:
        """Stop reading; may be called again. The FIFO stays, for keepalived has it open."""
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor, self._partial = -1, b""

    def _open(self) -> None:
        with suppress(FileExistsError):
            os.mkfifo(self._path, 0o600)
        with ExitStack() as refused:
            descriptor = os.open(self._path, _FLAGS)
            refused.callback(os.close, descriptor)
            _require_trust(os.fstat(descriptor))
            if not self.opened:
                _drain(descriptor)
            asyncio.get_running_loop().add_reader(descriptor, self._read)
            refused.pop_all()
        self._descriptor = descriptor
        self.opened += 1

    def _read(self) -> None:
        """Take what is there, at most a few dozen lines; the rest wakes us again."""
        with suppress(BlockingIOError):
            *lines, rest = (self._partial + os.read(self._descriptor, _READ_BYTES)).split(b"\n")
            self._partial = rest[:_LINE_BYTES_MAX]
            for notice in filter(None, map(parse, lines)):
                self._on_notice(notice)


def _require_trust(found: os.stat_result) -> None:
    """Raise OSError for anything that others than root and ourselves could write lies into."""
    if not stat.S_ISFIFO(found.st_mode):
        raise OSError(0, "is not a FIFO")
    if found.st_uid not in {0, os.geteuid()} or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OSError(0, "may be written by others than root")


def _drain(descriptor: int) -> None:
    with suppress(BlockingIOError):
        for _ in range(_STALE_READS_MAX):
            os.read(descriptor, _READ_BYTES)
