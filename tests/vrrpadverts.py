"""VRRP adverts for tests: sentinel itself must never be able to send one."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from sentinel.neighbours.packets import checksum

if TYPE_CHECKING:
    from sentinel.neighbours.packets import Advert


def advert(said: Advert, options: bytes = b"", to: str = "") -> bytes:
    """Return the packet from its IP header on, to the group of all routers or *to* one alone.

    *options* are of IPv4, in units of four bytes.
    """
    source = ip_address(said.source)
    head = bytes((said.version << 4 | 1, said.router_id, said.priority, len(said.addresses)))
    vrrp = head + bytes(4) + b"".join(ip_address(vip).packed for vip in said.addresses)
    if source.version == 4:
        length = 20 + len(options)
        total = (length + len(vrrp)).to_bytes(2)
        begin = bytes((0x40 | length // 4, 0xC0)) + total + b"\0\0\0\0\xff\x70"
        end = source.packed + ip_address(to or "224.0.0.18").packed + options
        return begin + checksum(begin + end).to_bytes(2) + end + vrrp  # or a bridge drops it
    ends = source.packed + ip_address(to or "ff02::12").packed
    return b"\x60\0\0\0" + len(vrrp).to_bytes(2) + b"\x70\xff" + ends + vrrp
