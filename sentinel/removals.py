"""Who took an address off this node, as far as the kernel tells: rtnetlink(7), netlink(7).

The notice of an address that was removed carries the netlink port of the socket that asked for it.
A process's first socket has its pid for a port (netlink_autobind in the kernel's
net/netlink/af_netlink.c); any further one has a number that says nothing. keepalived asks through
such a one, the same that it adds its VIPs by, and so is known by it.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_HEADER: Final = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ADDRESS: Final = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix, flags, scope, index
_ATTRIBUTE: Final = struct.Struct("=HH")  # rtattr: length, type
_NEW_ADDRESS: Final = 20
_REMOVED_ADDRESS: Final = 21
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2
_ALIGN: Final = 4
#: Ports above are not pids: PID_MAX_LIMIT in the kernel's linux/threads.h.
_PID_MAX: Final = 4 * 1024 * 1024
_KEPT_MAX: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """An address that somebody else than who had put it there took away; *by* names him."""

    address: str
    by: str


@dataclass(slots=True)
class Removals:
    """Remembers who added which address, to know his own removals from others'.

    *own_port* is the netlink port that sentinel itself removes addresses through, 0 for none yet.
    """

    own_port: int = 0
    _added: dict[str, int] = field(default_factory=dict)

    def of(self, datagram: bytes) -> Iterator[Removal]:
        """Yield what was removed by others than keepalived and sentinel; garbage yields nothing."""
        for kind, address, port in _messages(datagram):
            if kind == _NEW_ADDRESS:
                if len(self._added) >= _KEPT_MAX:
                    self._added.clear()
                self._added[address] = port
            elif not self._is_owners(port, self._added.pop(address, None)):
                by = _name(port)
                if by != "keepalived":
                    yield Removal(address=address, by=by)

    def _is_owners(self, port: int, added: int | None) -> bool:
        """Tell whether who removes is who added; one that was added before we looked may be so."""
        if port != 0 and port == self.own_port:
            return True
        return port >= _PID_MAX if added is None else port == added


def _messages(datagram: bytes) -> Iterator[tuple[int, str, int]]:
    """Yield type, address and port of every message about an address."""
    offset = 0
    while offset + _HEADER.size <= len(datagram):
        length, kind, _, _, port = _HEADER.unpack_from(datagram, offset)
        if length < _HEADER.size:
            return
        if kind in {_NEW_ADDRESS, _REMOVED_ADDRESS}:
            body = datagram[offset + _HEADER.size : offset + length]
            address = _address(body)
            if address:
                yield kind, address, port
        offset += -(-length // _ALIGN) * _ALIGN


def _address(body: bytes) -> str:
    """Return the address that a message is about, empty for what is none."""
    if len(body) < _ADDRESS.size:
        return ""
    family = body[0]
    if family not in {socket.AF_INET, socket.AF_INET6}:
        return ""
    found: dict[int, bytes] = {}
    offset = _ADDRESS.size
    while offset + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size:
            break
        found[kind] = body[offset + _ATTRIBUTE.size : offset + length]
        offset += -(-length // _ALIGN) * _ALIGN
    raw = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS) or b""
    try:
        return socket.inet_ntop(family, raw)
    except ValueError:
        return ""


def _name(port: int) -> str:
    """Name the process of a port, as far as that is possible; the kernel itself has port 0."""
    if port == 0:
        return "the kernel"
    if port >= _PID_MAX:
        return "a process that cannot be told from its socket"
    try:
        return os.fsdecode(Path(f"/proc/{port}/comm").read_bytes().strip())
    except OSError:
        return f"process {port}, which has ended"
