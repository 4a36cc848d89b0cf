"""Ask the wire who else has a VIP: ARP for IPv4, neighbour discovery for IPv6.

The kernel of this node never answers its own question, so on a healthy wire nobody does. The
question claims nothing and no neighbour learns from it. It is asked in a thread that waits and then
closes the socket, which takes the kernel longer than all the rest (see the package).
"""

from __future__ import annotations

import select
from collections import defaultdict
from contextlib import ExitStack
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

from sentinel.aside import Aside
from sentinel.neighbours import filters, packets
from sentinel.neighbours.wire import ETH_P_ARP, ETH_P_IPV6, open_on, own_mac, own_macs
from sentinel.vrrp import Rival

if TYPE_CHECKING:
    import socket
    from collections.abc import Collection

    from sentinel.vrrp import Vip

#: How long answers are waited for: a neighbour's kernel answers within microseconds.
TIMEOUT_S: Final = 0.3
#: A kernel that takes this much longer, to open and to close, does not come back.
KERNEL_S: Final = 3.0
#: As many VIPs are asked for at once, and so many answers read on one socket.
VIPS_MAX: Final = filters.VALUES_MAX
ANSWERS_MAX: Final = 512
_PACKET_BYTES: Final = 2048

_FAMILIES: Final = {
    4: (ETH_P_ARP, filters.arp_of),
    6: (ETH_P_IPV6, filters.advertisements_of),
}
#: The rivals of a VIP, or what hindered us to ask.
Answer = tuple[Rival, ...] | OSError


async def probe(vip: Vip, timeout_s: float = TIMEOUT_S) -> tuple[Rival, ...]:
    """Return the other machines that answer for *vip* on its interface within *timeout_s*.

    One that has the same virtual MAC as an interface of ours (``use_vmac`` on both nodes) cannot
    be told from ourselves; its adverts can. Where neighbours are not known by MACs there are none.

    Raises OSError: no such interface, it is down, or no CAP_NET_RAW.
    """
    answer = (await probe_all((vip,), Aside("asking the wire"), timeout_s))[vip]
    if isinstance(answer, OSError):
        raise answer
    return answer


async def probe_all(
    vips: Collection[Vip], aside: Aside, timeout_s: float = TIMEOUT_S
) -> dict[Vip, Answer]:
    """Ask *aside* for several VIPs at once, for the first VIPS_MAX of them; else as ``probe``."""
    asked = tuple(vips)[:VIPS_MAX]
    try:
        return await aside.run(partial(_ask, asked, timeout_s), timeout_s + KERNEL_S)
    except OSError as error:
        return dict.fromkeys(asked, error)


def _ask(vips: tuple[Vip, ...], timeout_s: float) -> dict[Vip, Answer]:
    """Ask on one socket for all VIPs of an interface and a version of IP."""
    asked: dict[tuple[str, int], list[Vip]] = defaultdict(list)
    for vip in vips:
        asked[vip.interface, ip_address(vip.address).version].append(vip)
    with ExitStack() as stack:
        sockets = {place: _open(place, asked[place], stack) for place in asked}
        select.select((), (), (), timeout_s)  # time.sleep has a deadline, which libfaketime breaks
        try:
            own = own_macs()
        except OSError as error:
            return dict.fromkeys(vips, error)
        found: dict[Vip, Answer] = {}
        for place, sock in sockets.items():
            if isinstance(sock, OSError):
                found |= dict.fromkeys(asked[place], sock)
                continue
            rivals = _rivals(sock, own)
            for vip in asked[place]:
                found[vip] = tuple(rival for rival in rivals if rival.address == vip.address)
        return found


def _open(place: tuple[str, int], vips: list[Vip], stack: ExitStack) -> socket.socket | OSError:
    """Open the socket on which the answers arrive, and ask."""
    interface, version = place
    protocol, program = _FAMILIES[version]
    addresses = [ip_address(vip.address) for vip in vips]
    try:
        sock = stack.enter_context(open_on(interface, protocol, program(addresses)))
        mac = own_mac(sock)
        if mac is not None:  # else there is no wire: loopback, a tunnel
            for address in addresses:
                packet, to = _question(mac, address)
                sock.sendto(packet, (interface, protocol, 0, 0, to))
    except OSError as error:
        return error
    return sock


def _question(mac: bytes, address: IPv4Address | IPv6Address) -> tuple[bytes, bytes]:
    """Return the question, and the MAC at which the holder of *address* hears it."""
    if isinstance(address, IPv4Address):
        return packets.arp_probe(mac, address), packets.BROADCAST
    return packets.neighbour_solicitation(address), packets.solicited_node_mac(address)


def _rivals(sock: socket.socket, own: frozenset[str]) -> frozenset[Rival]:
    """Read what has come: each MAC that is not ours is a rival."""
    found = set()
    for _ in range(ANSWERS_MAX):
        try:
            packet, (_, protocol, _, _, frame_mac) = sock.recvfrom(_PACKET_BYTES)
        except BlockingIOError:
            break
        rival = _rival(packet, protocol, packets.mac_text(frame_mac))
        if rival is not None and rival.mac not in own:
            found.add(rival)
    return frozenset(found)


def _rival(packet: bytes, protocol: int, frame_mac: str) -> Rival | None:
    """Read who has what; the frame's MAC stands in for one that is not said."""
    if protocol == ETH_P_ARP:
        arp = packets.parse_arp(packet)
        return Rival(how="ARP", address=arp.address, mac=arp.mac) if arp else None
    said = packets.parse_advertisement(packet)
    return Rival(how="ND", address=said.address, mac=said.mac or frame_mac) if said else None
