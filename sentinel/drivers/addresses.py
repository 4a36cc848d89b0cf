"""The addresses of this node, as the kernel has them; the only module that imports pyroute2.

Truth is a dump, on a socket of its own each time: neither a socket that lost events (ENOBUFS) nor
the acknowledgements that pyroute2 0.9.7 keeps of single requests can outlive it. It costs a
millisecond and a half and leaves garbage in cycles, so it is not made again while the kernel has
sent no event since: the kernel either sends them all or says that it could not. Of events only who
took an address away is read. While one has just been reported the next are left in the kernel: so a
storm costs no more than ten looks a second, and what it ends with is always seen.

pyroute2 takes 80 ms and 9 MB to import, so only the daemon imports this, at its start: later it
would hold up every check.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR, RTMGRP_LINK

from sentinel.actions import Outcome
from sentinel.removals import Removals

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentinel.removals import Removal
    from sentinel.vrrp import Vip

DUMP_TIMEOUT_S: Final = 2.0
REMOVE_TIMEOUT_S: Final = 2.0
#: Even if nothing has changed, a dump is not believed for longer.
KNOWN_S: Final = 30.0
#: How long no further change is reported after one.
REST_S: Final = 0.1
_GROUPS: Final = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR
#: What the kernel keeps of unread events; the rest is ENOBUFS, which means "changed" as well.
_UNREAD_BYTES: Final = 16 * 1024
_EVENT_BYTES_MAX: Final = 32 * 1024
_EVENTS_MAX: Final = 256
_SECONDARY: Final = 0x01  # IFA_F_SECONDARY, linux/if_addr.h
#: The address, or the whole interface, is not there: nothing is left to be removed.
_GONE: Final = frozenset({errno.EADDRNOTAVAIL, errno.ENODEV, errno.ENXIO})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One address of one interface, as ``ip address`` shows it."""

    address: str
    prefix: int
    interface: str
    index: int
    secondary: bool

    def is_of(self, vip: Vip) -> bool:
        """Tell whether this is *vip*, with its prefix and on its interface."""
        return (self.address, self.prefix, self.interface) == (
            vip.address,
            vip.prefix,
            vip.interface,
        )


class Addresses:
    """Watches the addresses and links of this network namespace, until ``close``."""

    def __init__(
        self, on_change: Callable[[], None], on_removal: Callable[[Removal], None]
    ) -> None:
        """Watch from the first look on; *on_change* says that another look is worth it.

        *on_removal* is told of addresses that neither keepalived nor sentinel took away.
        """
        self._on_change = on_change
        self._on_removal = on_removal
        self._removals = Removals()
        self._events: socket.socket | None = None
        self._rest: asyncio.TimerHandle | None = None
        self._changes = 0
        self._unreported = False
        self._known: tuple[_Row, ...] | None = None
        self._known_s = 0.0

    async def present(self) -> frozenset[tuple[str, str]] | None:
        """Return every address with its interface; None when it cannot be told.

        What changes after this has looked is reported by ``on_change``.
        """
        rows = await self._look()
        return None if rows is None else frozenset((row.address, row.interface) for row in rows)

    async def local(self) -> frozenset[str] | None:
        """Return every address, wherever it is; None when it cannot be told."""
        rows = await self._look()
        return None if rows is None else frozenset(row.address for row in rows)

    async def remove(self, vip: Vip) -> Outcome:
        """Take *vip* from its interface, and nothing else; one that is gone already is ok.

        Not ok when it is still there afterwards, or when the kernel would remove other addresses
        with it: those in its subnet that came later, unless promote_secondaries is set
        (ip-sysctl in the kernel's documentation).
        """
        try:
            async with asyncio.timeout(REMOVE_TIMEOUT_S), AsyncIPRoute() as netlink:
                return await _remove(netlink, vip, self._removals)
        except TimeoutError:
            return Outcome(ok=False, detail=f"{vip}: no answer within {REMOVE_TIMEOUT_S} s")
        except NetlinkError as error:
            return Outcome(ok=False, detail=f"{vip}: {os.strerror(error.code)}")
        except OSError as error:
            return Outcome(ok=False, detail=f"{vip}: {error.strerror}")

    def close(self) -> None:
        """Stop watching; may be called again."""
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        if self._events is not None:
            asyncio.get_running_loop().remove_reader(self._events)
            self._events.close()
            self._events = None

    # --- looking --------------------------------------------------------------------------------

    async def _look(self) -> tuple[_Row, ...] | None:
        """Return what is known, made anew if something has happened since."""
        try:
            events = self._listen()
            if self._drain(events):
                self._report(events)
        except OSError:
            return None
        now_s, changes = asyncio.get_running_loop().time(), self._changes
        if self._known is not None and now_s - self._known_s <= KNOWN_S:
            return self._known
        rows = await _dump()
        if changes == self._changes:  # else it may be from before what has happened meanwhile
            self._known, self._known_s = rows, now_s
        return rows

    def _listen(self) -> socket.socket:
        """Hear of changes from now on; raises OSError when no socket is to be had."""
        if self._events is not None:
            return self._events
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._known = None
        events = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        try:
            events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _UNREAD_BYTES)
            events.bind((0, _GROUPS))
        except OSError:
            events.close()
            raise
        self._events = events
        asyncio.get_running_loop().add_reader(events, self._changed, events)
        return events

    def _changed(self, events: socket.socket) -> None:
        if self._drain(events):
            self._report(events)

    def _drain(self, events: socket.socket) -> bool:
        """Forget what was known if there are events, and the events with it."""
        if self._read(events):
            self._known, self._unreported = None, True
            self._changes += 1
        return self._unreported

    def _read(self, events: socket.socket) -> bool:
        """Read all events, and tell whether there were any, or some were dropped (ENOBUFS)."""
        for count in range(_EVENTS_MAX):
            try:
                datagram = events.recv(_EVENT_BYTES_MAX)
            except BlockingIOError:
                return count > 0
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
            else:
                for removal in self._removals.of(datagram):
                    self._on_removal(removal)
        return True

    def _report(self, events: socket.socket) -> None:
        """Say that something has changed, and leave what follows in the kernel for a while."""
        if self._rest is not None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(events)
        self._rest = loop.call_later(REST_S, self._rested, events)
        self._unreported = False
        self._on_change()

    def _rested(self, events: socket.socket) -> None:
        """Listen again: what has come meanwhile, read or not, is reported at once."""
        self._rest = None
        asyncio.get_running_loop().add_reader(events, self._changed, events)
        if self._unreported:
            self._report(events)


async def _dump() -> tuple[_Row, ...] | None:
    """Return the addresses of all interfaces, None when the kernel does not tell in time."""
    try:
        async with asyncio.timeout(DUMP_TIMEOUT_S), AsyncIPRoute() as netlink:
            return await _rows(netlink)
    except (OSError, NetlinkError, TimeoutError):
        return None


async def _rows(netlink: AsyncIPRoute) -> tuple[_Row, ...]:
    """Dump the addresses; those of an interface that has gone meanwhile went with it."""
    rows = []
    names: dict[int, str] = {}
    async for message in await netlink.addr("dump"):
        # the local end of a point-to-point link is IFA_LOCAL; elsewhere both are the same
        address = message.get("IFA_LOCAL") or message.get("IFA_ADDRESS")
        index = message["index"]
        if index not in names:
            names[index] = _name(index)
        if address and names[index]:
            rows.append(
                _Row(
                    address=str(ip_address(address)) if ":" in address else address,
                    prefix=message["prefixlen"],
                    interface=names[index],
                    index=index,
                    secondary=bool(message["flags"] & _SECONDARY),
                )
            )
    return tuple(rows)


def _name(index: int) -> str:
    """Return the name of an interface, empty when it has gone; raises OSError when not told."""
    try:
        return socket.if_indextoname(index)
    except OSError as error:
        if error.errno in _GONE:
            return ""
        raise


async def _remove(netlink: AsyncIPRoute, vip: Vip, removals: Removals) -> Outcome:
    """Remove *vip* and look whether it has gone; raises OSError or NetlinkError."""
    before = await _rows(netlink)
    row = next((row for row in before if row.is_of(vip)), None)
    if row is None:
        return Outcome(ok=True, detail=f"{vip} is not here")
    if others := _lost_with(row, before):
        return Outcome(ok=False, detail=f"{vip}: {', '.join(others)} would go with it")
    removals.own_port = netlink.socket.getsockname()[0]  # which the first request has bound
    try:
        await netlink.addr("del", index=row.index, address=row.address, prefixlen=row.prefix)
    except NetlinkError as error:
        if error.code not in _GONE:
            raise
    if any(row.is_of(vip) for row in await _rows(netlink)):
        return Outcome(ok=False, detail=f"{vip} is still here")
    return Outcome(ok=True)


def _lost_with(lost: _Row, rows: tuple[_Row, ...]) -> list[str]:
    """Return the addresses that the kernel would remove together with *lost*.

    A primary IPv4 address takes its secondaries with it (__inet_del_ifa in the kernel's
    net/ipv4/devinet.c): those of the same interface, prefix length and subnet.
    """
    if ":" in lost.address or lost.secondary or _promotes(lost.interface):
        return []
    subnet = ip_interface(f"{lost.address}/{lost.prefix}").network
    return [
        f"{row.address}/{row.prefix}"
        for row in rows
        if row.secondary
        and (row.index, row.prefix) == (lost.index, lost.prefix)
        and ip_address(row.address) in subnet
    ]


def _promotes(interface: str) -> bool:
    """Tell whether a secondary address becomes the primary one there, instead of going with it."""
    folder = Path("/proc/sys/net/ipv4/conf")
    for name in ("all", interface):
        with suppress(OSError):
            if folder.joinpath(name, "promote_secondaries").read_text().strip() == "1":
                return True
    return False
