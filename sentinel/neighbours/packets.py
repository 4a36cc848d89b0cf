"""What neighbours say to each other, as bytes: ARP, neighbour discovery and VRRP adverts.

Pure. What is built is complete from the network layer up; what is parsed comes from anybody, so
that everything which is not exactly what was looked for is None and nothing raises. Every packet is
parsed in time and space bounded by its own length.

Sources: RFC 826 and RFC 5227 (ARP probe and announcement), RFC 4861 and RFC 4862 (neighbour
discovery and its use in duplicate address detection), RFC 3768 and RFC 9568 (VRRP 2 and 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from socket import IPPROTO_ICMPV6
from struct import Struct, unpack_from
from typing import Final

IPPROTO_VRRP: Final = 112
BROADCAST: Final = b"\xff" * 6
#: ff02::1, to which every node of IPv6 listens, and the Ethernet address of it (RFC 2464, 7).
ALL_NODES: Final = IPv6Address("ff02::1")
ALL_NODES_MAC: Final = bytes.fromhex("333300000001")

#: hardware and protocol type, their lengths, operation, then sender and target as MAC and address
_ARP: Final = Struct("!HHBBH6s4s6s4s")
_ARP_ETHERNET_IPV4: Final = (1, 0x0800, 6, 4)
_REQUEST: Final = 1
_REPLY: Final = 2
_NOBODY: Final = b"\0" * 6

_IPV4: Final = Struct("!B8xB2x4s4x")
_IPV6: Final = Struct("!IHBB16s16s")
_IPV6_VERSION: Final = 6 << 28
_SOLICITATION: Final = 135
_ADVERTISEMENT: Final = 136
#: type, code, checksum, flags, target; options follow in units of eight bytes
_ND: Final = Struct("!BBHI16s")
_ROUTER: Final = 1 << 31
_OVERRIDE: Final = 1 << 29
_TARGET_LINK_ADDRESS: Final = 2
#: No router has forwarded it, so it comes from this link (RFC 4861, 7.1.2).
_HOP_LIMIT: Final = 255

#: version and type, VRID, priority, number of addresses; what follows differs by version
_VRRP: Final = Struct("!BBBB4x")
_ADVERT: Final = 1
_VERSIONS: Final = {2, 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arp:
    """An ARP request or reply: whoever sent it says that *address* is at *mac*."""

    mac: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Advertisement:
    """A neighbour advertisement: *address* is at *mac*, empty when it does not say where."""

    mac: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Advert:
    """A VRRP advertisement: *source* is MASTER of the virtual router *router_id*.

    *addresses* are the router's own list; priority 0 says that this MASTER is giving up.
    """

    source: str
    version: int
    router_id: int
    priority: int
    addresses: tuple[str, ...]


def arp_probe(mac: bytes, address: IPv4Address) -> bytes:
    """Ask who has *address* without claiming anything: the sender's address is 0.0.0.0.

    No neighbour learns from it (RFC 5227, 2.1.1).
    """
    return _arp(_REQUEST, (mac, IPv4Address(0)), (_NOBODY, address))


def arp_announcements(mac: bytes, address: IPv4Address) -> tuple[bytes, bytes]:
    """Say to all that *address* is at *mac*: as a request (RFC 5227, 2.3) and as a reply.

    Some neighbours learn from the one and some from the other (RFC 5227, 3).
    """
    return (
        _arp(_REQUEST, (mac, address), (_NOBODY, address)),
        _arp(_REPLY, (mac, address), (BROADCAST, address)),
    )


def _arp(
    operation: int, sender: tuple[bytes, IPv4Address], target: tuple[bytes, IPv4Address]
) -> bytes:
    return _ARP.pack(
        *_ARP_ETHERNET_IPV4, operation, sender[0], sender[1].packed, target[0], target[1].packed
    )


def parse_arp(packet: bytes) -> Arp | None:
    """Read an ARP packet of IPv4 on Ethernet; who only asks, as a probe does, says nothing."""
    if len(packet) < _ARP.size:
        return None
    *kind, operation, mac, address, _, _ = _ARP.unpack_from(packet)
    if tuple(kind) != _ARP_ETHERNET_IPV4 or operation not in {_REQUEST, _REPLY}:
        return None
    if not any(address):
        return None
    return Arp(mac=mac_text(mac), address=str(IPv4Address(address)))


def solicited_node(address: IPv6Address) -> IPv6Address:
    """Return the group in which the holder of *address* is asked for it (RFC 4291, 2.7.1)."""
    return IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:13] + address.packed[13:])


def solicited_node_mac(address: IPv6Address) -> bytes:
    """Return the Ethernet address of that group (RFC 2464, 7)."""
    return b"\x33\x33" + solicited_node(address).packed[12:]


def neighbour_solicitation(address: IPv6Address) -> bytes:
    """Ask who has *address* from nowhere (``::``), as duplicate address detection does.

    No neighbour learns from it, and the holder answers all nodes (RFC 4862, 5.4.2; RFC 4861,
    7.2.4).
    """
    message = _ND.pack(_SOLICITATION, 0, 0, 0, address.packed)
    return _icmpv6(IPv6Address(0), solicited_node(address), message)


def unsolicited_advertisement(mac: bytes, address: IPv6Address, *, router: bool) -> bytes:
    """Say to all nodes that *address* is at *mac*, whatever they have believed until now.

    *router* is whether this node forwards: a host that hears a router deny it stops using it as its
    gateway (RFC 4861, 7.2.5 and 7.2.6).
    """
    flags = _OVERRIDE | (_ROUTER if router else 0)
    message = _ND.pack(_ADVERTISEMENT, 0, 0, flags, address.packed)
    option = bytes((_TARGET_LINK_ADDRESS, 1)) + mac
    return _icmpv6(address, ALL_NODES, message + option)


def _icmpv6(source: IPv6Address, target: IPv6Address, message: bytes) -> bytes:
    """Complete a message by its checksum and the header in front of it."""
    ends = source.packed + target.packed
    pseudo = ends + len(message).to_bytes(4) + IPPROTO_ICMPV6.to_bytes(4)
    filled = message[:2] + checksum(pseudo + message).to_bytes(2) + message[4:]
    header = _IPV6.pack(
        _IPV6_VERSION, len(message), IPPROTO_ICMPV6, _HOP_LIMIT, source.packed, target.packed
    )
    return header + filled


def checksum(data: bytes) -> int:
    """Return the Internet checksum of data of even length (RFC 1071)."""
    total: int = sum(unpack_from(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def parse_advertisement(packet: bytes) -> Advertisement | None:
    """Read a neighbour advertisement from its IPv6 header on."""
    if len(packet) < _IPV6.size + _ND.size:
        return None
    version, _, protocol, hop_limit, _, _ = _IPV6.unpack_from(packet)
    if (version >> 28, protocol, hop_limit) != (6, IPPROTO_ICMPV6, _HOP_LIMIT):
        return None
    kind, code, _, _, target = _ND.unpack_from(packet, _IPV6.size)
    if (kind, code) != (_ADVERTISEMENT, 0):
        return None
    mac = _target_link_address(packet[_IPV6.size + _ND.size :])
    return Advertisement(mac=mac, address=str(IPv6Address(target)))


def _target_link_address(options: bytes) -> str:
    """Find the one option that matters; each has a type and a length in eight bytes, never 0."""
    at = 0
    while at + 8 <= len(options) and options[at + 1]:
        if options[at] == _TARGET_LINK_ADDRESS and options[at + 1] == 1:
            return mac_text(options[at + 2 : at + 8])
        at += 8 * options[at + 1]
    return ""


def parse_advert(packet: bytes) -> Advert | None:
    """Read a VRRP advert from its IPv4 or IPv6 header on, of version 2 or 3.

    Neither its checksum, its TTL nor its password is judged: an advert that keepalived refuses is
    exactly what a second MASTER may be known by.
    """
    found = _vrrp(packet)
    if found is None:
        return None
    source, at, length = found
    if len(packet) < at + _VRRP.size:
        return None
    kind, router_id, priority, count = _VRRP.unpack_from(packet, at)
    end = at + _VRRP.size + count * length
    if kind & 0xF != _ADVERT or kind >> 4 not in _VERSIONS or len(packet) < end:
        return None
    spell = IPv4Address if length == 4 else IPv6Address  # noqa: PLR2004  (bytes of an address)
    return Advert(
        source=str(spell(source)),
        version=kind >> 4,
        router_id=router_id,
        priority=priority,
        addresses=tuple(
            str(spell(packet[i : i + length])) for i in range(at + _VRRP.size, end, length)
        ),
    )


def _vrrp(packet: bytes) -> tuple[bytes, int, int] | None:
    """Find VRRP in a packet: who sent it, where it begins, and how long its addresses are."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= _IPV4.size:  # noqa: PLR2004  (IP's own name)
        begin, protocol, source = _IPV4.unpack_from(packet)
        at = (begin & 0xF) * 4
        return (source, at, 4) if protocol == IPPROTO_VRRP and at >= _IPV4.size else None
    if version == 6 and len(packet) >= _IPV6.size:  # noqa: PLR2004
        _, _, protocol, _, source, _ = _IPV6.unpack_from(packet)
        return (source, _IPV6.size, 16) if protocol == IPPROTO_VRRP else None
    return None


def mac_text(mac: bytes) -> str:
    """Spell a MAC as ``ip link`` does."""
    return mac.hex(":")
